variable "name" {
  description = "Name of the network."
  type        = string
}

variable "location" {
  description = "Azure region."
  type        = string
}

variable "resource_group_name" {
  description = "Resource group."
  type        = string
}

variable "tags" {
  description = "Tags of every resource."
  type        = map(string)
}

variable "address_space" {
  description = "Range of the network: a sixteenth of it is for nodes."
  type        = string
}

variable "service_endpoints" {
  description = "Services that nodes reach by a service endpoint instead of a private one."
  type        = set(string)
  default     = []
}

variable "private_services" {
  description = "Services that have a private endpoint, and so need a DNS zone: blob, registry."
  type        = set(string)

  validation {
    condition     = length(setsubtract(var.private_services, ["blob", "registry"])) == 0
    error_message = "private_services: blob and registry."
  }
}
