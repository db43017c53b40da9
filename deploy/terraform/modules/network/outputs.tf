output "virtual_network_id" {
  description = "The network."
  value       = azurerm_virtual_network.this.id
}

output "nodes_subnet_id" {
  description = "Subnet of all node pools."
  # Only once its security group is in place: AKS would otherwise start nodes in a subnet that is about to change.
  value = azurerm_subnet_network_security_group_association.nodes.subnet_id
}

output "endpoints_subnet_id" {
  description = "Subnet of private endpoints."
  value       = azurerm_subnet_network_security_group_association.endpoints.subnet_id
}

output "zone_ids" {
  description = "DNS zone of each service that has a private endpoint."
  value       = { for service, zone in azurerm_private_dns_zone.this : service => zone.id }
}
