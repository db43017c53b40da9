variable "name" {
  description = "Name of the identity."
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

variable "oidc_issuer_url" {
  description = "The cluster's issuer of service account tokens."
  type        = string
}

variable "namespace" {
  description = "Kubernetes namespace of the service account."
  type        = string
}

variable "service_account" {
  description = "Kubernetes service account that may use the identity."
  type        = string
}

variable "container_id" {
  description = "Blob container that the identity may read and write."
  type        = string
}
