variable "name" {
  description = "Name of the registry, unique in all of Azure."
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

variable "sku" {
  description = "Basic, Standard or Premium."
  type        = string
}

variable "authorized_ip_ranges" {
  description = "Public ranges that may reach a Premium registry."
  type        = list(string)
}

variable "private_endpoint" {
  description = "Subnet of the private endpoint and the DNS zone that leads to it, or null for none. Premium only."
  type = object({
    subnet_id        = string
    registry_zone_id = string
  })

  validation {
    condition     = var.private_endpoint == null || var.sku == "Premium"
    error_message = "private_endpoint: only Premium registries can have one."
  }
}
