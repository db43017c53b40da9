variable "name" {
  description = "Name of the budget."
  type        = string
}

variable "subscription_id" {
  description = "Subscription (GUID)."
  type        = string
}

variable "resource_groups" {
  description = "Resource groups whose costs count."
  type        = list(string)
}

variable "amount" {
  description = "Money a month, in the subscription's currency."
  type        = number
}

variable "emails" {
  description = "Who is told."
  type        = list(string)
}
