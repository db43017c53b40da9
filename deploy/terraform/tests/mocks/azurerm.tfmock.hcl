# What Azure would answer. Without these, mocked identifiers are random text, which the provider refuses as arguments of
# other resources.

mock_data "azurerm_client_config" {
  defaults = {
    subscription_id = "00000000-0000-0000-0000-00000000000a"
    tenant_id       = "00000000-0000-0000-0000-00000000000b"
    object_id       = "00000000-0000-0000-0000-00000000000c"
  }
}

mock_resource "azurerm_resource_group" {
  defaults = {
    id = "/subscriptions/00000000-0000-0000-0000-00000000000a/resourceGroups/ticketsmith"
  }
}

mock_resource "azurerm_virtual_network" {
  defaults = {
    id = "/subscriptions/00000000-0000-0000-0000-00000000000a/resourceGroups/ticketsmith/providers/Microsoft.Network/virtualNetworks/ticketsmith"
  }
}

mock_resource "azurerm_subnet" {
  defaults = {
    id = "/subscriptions/00000000-0000-0000-0000-00000000000a/resourceGroups/ticketsmith/providers/Microsoft.Network/virtualNetworks/ticketsmith/subnets/any"
  }
}

mock_resource "azurerm_network_security_group" {
  defaults = {
    id = "/subscriptions/00000000-0000-0000-0000-00000000000a/resourceGroups/ticketsmith/providers/Microsoft.Network/networkSecurityGroups/any"
  }
}

mock_resource "azurerm_private_dns_zone" {
  defaults = {
    id = "/subscriptions/00000000-0000-0000-0000-00000000000a/resourceGroups/ticketsmith/providers/Microsoft.Network/privateDnsZones/privatelink.example.net"
  }
}

mock_resource "azurerm_storage_account" {
  defaults = {
    id = "/subscriptions/00000000-0000-0000-0000-00000000000a/resourceGroups/ticketsmith/providers/Microsoft.Storage/storageAccounts/ticketsmith"
  }
}

mock_resource "azurerm_storage_container" {
  defaults = {
    id = "/subscriptions/00000000-0000-0000-0000-00000000000a/resourceGroups/ticketsmith/providers/Microsoft.Storage/storageAccounts/ticketsmith/blobServices/default/containers/experiments"
  }
}

mock_resource "azurerm_container_registry" {
  defaults = {
    id           = "/subscriptions/00000000-0000-0000-0000-00000000000a/resourceGroups/ticketsmith/providers/Microsoft.ContainerRegistry/registries/ticketsmith"
    login_server = "ticketsmith.azurecr.io"
  }
}

mock_resource "azurerm_user_assigned_identity" {
  defaults = {
    id           = "/subscriptions/00000000-0000-0000-0000-00000000000a/resourceGroups/ticketsmith/providers/Microsoft.ManagedIdentity/userAssignedIdentities/any"
    client_id    = "00000000-0000-0000-0000-00000000000d"
    principal_id = "00000000-0000-0000-0000-00000000000e"
    tenant_id    = "00000000-0000-0000-0000-00000000000b"
  }
}

mock_resource "azurerm_kubernetes_cluster" {
  defaults = {
    id              = "/subscriptions/00000000-0000-0000-0000-00000000000a/resourceGroups/ticketsmith/providers/Microsoft.ContainerService/managedClusters/ticketsmith"
    oidc_issuer_url = "https://westeurope.oic.prod-aks.azure.com/00000000-0000-0000-0000-00000000000b/issuer/"
  }
}

mock_resource "azurerm_log_analytics_workspace" {
  defaults = {
    id = "/subscriptions/00000000-0000-0000-0000-00000000000a/resourceGroups/ticketsmith/providers/Microsoft.OperationalInsights/workspaces/ticketsmith"
  }
}

mock_resource "azurerm_role_definition" {
  defaults = {
    role_definition_resource_id = "/subscriptions/00000000-0000-0000-0000-00000000000a/providers/Microsoft.Authorization/roleDefinitions/00000000-0000-0000-0000-000000000011"
  }
}
