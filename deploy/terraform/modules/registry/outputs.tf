output "id" {
  description = "The registry, as a scope of roles."
  value       = azurerm_container_registry.this.id
}

output "login_server" {
  description = "Host name that images begin with."
  value       = azurerm_container_registry.this.login_server
}
