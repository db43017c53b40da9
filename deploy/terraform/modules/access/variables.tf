variable "name" {
  description = "Name of the installation."
  type        = string
}

variable "resource_group_id" {
  description = "Where the role of submitters may be assigned."
  type        = string
}

variable "cluster_id" {
  description = "The cluster."
  type        = string
}

variable "registry_id" {
  description = "The registry."
  type        = string
}

variable "container_id" {
  description = "The blob container."
  type        = string
}

variable "namespace" {
  description = "Kubernetes namespace of all Jobs."
  type        = string
}

variable "operators" {
  description = "Object IDs of those who run the installation."
  type        = set(string)
}

variable "submitters" {
  description = "Object IDs of those who submit experiments."
  type        = set(string)
}
