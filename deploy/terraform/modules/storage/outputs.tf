output "account" {
  description = "Name of the account."
  value       = azurerm_storage_account.this.name
}

output "container_id" {
  description = "The container, as a scope of roles."
  value       = azurerm_storage_container.this.id
}
