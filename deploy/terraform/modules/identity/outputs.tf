output "client_id" {
  description = "Value of the annotation azure.workload.identity/client-id."
  value       = azurerm_user_assigned_identity.this.client_id
}
