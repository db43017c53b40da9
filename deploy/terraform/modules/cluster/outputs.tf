output "id" {
  description = "The cluster, as a scope of roles."
  value       = azurerm_kubernetes_cluster.this.id
}

output "name" {
  description = "Name of the cluster."
  value       = azurerm_kubernetes_cluster.this.name
}

output "private" {
  description = "Whether the API server is private."
  value       = local.private
}

output "oidc_issuer_url" {
  description = "Issuer of service account tokens, which federated credentials trust."
  value       = azurerm_kubernetes_cluster.this.oidc_issuer_url
}

output "machines" {
  description = "Machine size by the label ticketsmith.io/pool."
  value       = { for pool in local.pools : pool.label => pool.vm_size }
}
