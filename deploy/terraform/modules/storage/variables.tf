variable "name" {
  description = "Name of the account, unique in all of Azure."
  type        = string

  validation {
    condition     = can(regex("^[a-z0-9]{3,24}$", var.name))
    error_message = "name: 3 to 24 small letters and digits."
  }
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

variable "container" {
  description = "Name of the container."
  type        = string
}

variable "store_prefixes" {
  description = "Prefixes of stores in the container; scratch lies in .work/ below each."
  type        = set(string)
}

variable "replication" {
  description = "LRS or ZRS."
  type        = string
}

variable "checkpoint_days" {
  description = "Days after which an unchanged checkpoint is removed."
  type        = number
}

variable "recovery_days" {
  description = "Days for which deleted and overwritten blobs, and the container, can be had back."
  type        = number
}

variable "immutable_days" {
  description = "Days for which no version of a blob can be removed, or null."
  type        = number
}

variable "shared_access_keys" {
  description = "Allow connection strings."
  type        = bool
}

variable "authorized_ip_ranges" {
  description = "Public ranges that may reach the account."
  type        = list(string)
}

variable "nodes_subnet_id" {
  description = "Subnet of the nodes, which is let in when there is no private endpoint."
  type        = string
}

variable "private_endpoint" {
  description = "Subnet of the private endpoint and the DNS zone that leads to it, or null for none."
  type = object({
    subnet_id    = string
    blob_zone_id = string
  })
}
