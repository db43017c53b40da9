variable "name" {
  description = "Name of the cluster."
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

variable "node_resource_group" {
  description = "Resource group that AKS makes for nodes; it must not exist."
  type        = string
}

variable "tenant_id" {
  description = "Entra ID tenant whose people sign in to the cluster."
  type        = string
}

variable "tags" {
  description = "Tags of every resource."
  type        = map(string)
}

variable "kubernetes_version" {
  description = "Minor version, or null for the one that AKS recommends."
  type        = string
}

variable "sku_tier" {
  description = "Free or Standard."
  type        = string
}

variable "authorized_ip_ranges" {
  description = "Public ranges that may reach the API server; empty: it is private."
  type        = list(string)
}

variable "virtual_network_id" {
  description = "The network, on which the cluster gets a role."
  type        = string
}

variable "nodes_subnet_id" {
  description = "Subnet of all nodes."
  type        = string
}

variable "registry_id" {
  description = "Registry that nodes pull from."
  type        = string
}

variable "idle_minutes" {
  description = "Minutes after which an unused node is removed."
  type        = number
}

variable "system_pool" {
  description = "Nodes of the cluster's own services."
  type = object({
    vm_size         = string
    min_count       = number
    max_count       = number
    os_disk_type    = string
    os_disk_size_gb = number
  })
}

variable "cpu_pool" {
  description = "Nodes of conductors and reports."
  type = object({
    vm_size         = string
    max_count       = number
    os_disk_type    = string
    os_disk_size_gb = number
    zones           = list(string)
  })
}

variable "gpu_pool" {
  description = "Nodes of training, or null for none."
  type = object({
    vm_size         = string
    max_count       = number
    os_disk_type    = string
    os_disk_size_gb = number
    zones           = list(string)
  })
}

variable "gpu_spot_pool" {
  description = "Evictable nodes of training, or null for none."
  type = object({
    vm_size         = string
    max_count       = number
    os_disk_type    = string
    os_disk_size_gb = number
    zones           = list(string)
  })
}

variable "log_analytics" {
  description = "Retention and daily cap of the control plane's logs, or null for none."
  type = object({
    retention_in_days = number
    daily_quota_gb    = number
  })
}
