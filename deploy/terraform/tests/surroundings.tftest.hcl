# Network, registry and budget.

mock_provider "azurerm" {
  source = "./tests/mocks"
}

variables {
  name                = "ticketsmith"
  location            = "westeurope"
  resource_group_name = "ticketsmith"
  tags                = {}
}

run "network" {
  module {
    source = "./modules/network"
  }
  variables {
    address_space    = "10.224.0.0/16"
    private_services = ["blob", "registry"]
  }

  assert {
    condition = (
      azurerm_subnet.nodes.address_prefixes == tolist(["10.224.0.0/20"]) &&
      azurerm_subnet.endpoints.address_prefixes == tolist(["10.224.16.0/24"])
    )
    error_message = "subnets must lie in the network and apart"
  }
  assert {
    condition = (
      azurerm_subnet.nodes.default_outbound_access_enabled == false &&
      azurerm_subnet.endpoints.default_outbound_access_enabled == false &&
      azurerm_subnet.endpoints.private_endpoint_network_policies == "Enabled"
    )
    error_message = "no way out but the cluster's, and the security group must hold for endpoints"
  }
  assert {
    condition = anytrue([
      for rule in azurerm_network_security_group.endpoints.security_rule :
      rule.access == "Deny" && rule.direction == "Inbound" && rule.priority == 4096 && rule.source_address_prefix == "*"
    ])
    error_message = "endpoints answer HTTPS and nothing else"
  }
  assert {
    condition = toset([
      for rule in azurerm_network_security_group.endpoints.security_rule :
      "${rule.access} ${rule.direction} ${rule.protocol} from ${rule.source_address_prefix} to ${rule.destination_port_range}"
    ]) == toset(["Allow Inbound Tcp from VirtualNetwork to 443", "Deny Inbound * from * to *"])
    error_message = "HTTPS from within the network, and no other rule"
  }
  assert {
    condition = toset(keys(azurerm_private_dns_zone_virtual_network_link.this)) == toset(["blob", "registry"]) && alltrue([
      for link in azurerm_private_dns_zone_virtual_network_link.this : link.virtual_network_id == azurerm_virtual_network.this.id
    ])
    error_message = "without the link, names lead nodes to public addresses, which are closed"
  }
  assert {
    condition = toset([for zone in azurerm_private_dns_zone.this : zone.name]) == toset([
      "privatelink.blob.core.windows.net", "privatelink.azurecr.io"
    ])
    error_message = "Azure's own names for private endpoints"
  }
  assert {
    condition     = length(azurerm_subnet.nodes.service_endpoint) == 0
    error_message = "with private endpoints there is no need of service endpoints"
  }
}

run "network_with_service_endpoints" {
  command = plan
  module {
    source = "./modules/network"
  }
  variables {
    address_space     = "10.10.0.0/19"
    service_endpoints = ["Microsoft.Storage"]
    private_services  = []
  }

  assert {
    condition     = [for endpoint in azurerm_subnet.nodes.service_endpoint : endpoint.service] == ["Microsoft.Storage"]
    error_message = "without a private endpoint, the nodes' subnet must be known to the storage firewall"
  }
  assert {
    condition     = length(azurerm_private_dns_zone.this) == 0
    error_message = "zones cost money, so none without an endpoint"
  }
}

run "registry" {
  command = plan
  module {
    source = "./modules/registry"
  }
  variables {
    sku                  = "Basic"
    authorized_ip_ranges = []
    private_endpoint     = null
  }

  assert {
    condition     = azurerm_container_registry.this.admin_enabled == false && azurerm_container_registry.this.anonymous_pull_enabled == false
    error_message = "no passwords, no anonymous pulls"
  }
  assert {
    condition     = length(azurerm_private_endpoint.registry) == 0
    error_message = "Basic registries have no private endpoint"
  }
}

run "premium_registry_is_private" {
  command = plan
  module {
    source = "./modules/registry"
  }
  variables {
    sku                  = "Premium"
    authorized_ip_ranges = []
    private_endpoint = {
      subnet_id        = "/subscriptions/00000000-0000-0000-0000-00000000000a/resourceGroups/ticketsmith/providers/Microsoft.Network/virtualNetworks/ticketsmith/subnets/endpoints"
      registry_zone_id = "/subscriptions/00000000-0000-0000-0000-00000000000a/resourceGroups/ticketsmith/providers/Microsoft.Network/privateDnsZones/privatelink.azurecr.io"
    }
  }

  assert {
    condition     = azurerm_container_registry.this.public_network_access_enabled == false && length(azurerm_private_endpoint.registry) == 1
    error_message = "a Premium registry must be reached by its private endpoint"
  }
  assert {
    condition     = azurerm_container_registry.this.network_rule_set[0].default_action == "Deny"
    error_message = "and should somebody open it, it lets nobody in"
  }
}

run "endpoint_needs_premium" {
  command = plan
  module {
    source = "./modules/registry"
  }
  variables {
    sku                  = "Basic"
    authorized_ip_ranges = []
    private_endpoint = {
      subnet_id        = "/subscriptions/00000000-0000-0000-0000-00000000000a/resourceGroups/ticketsmith/providers/Microsoft.Network/virtualNetworks/ticketsmith/subnets/endpoints"
      registry_zone_id = "/subscriptions/00000000-0000-0000-0000-00000000000a/resourceGroups/ticketsmith/providers/Microsoft.Network/privateDnsZones/privatelink.azurecr.io"
    }
  }

  expect_failures = [var.private_endpoint]
}

run "budget" {
  command = plan
  module {
    source = "./modules/budget"
  }
  variables {
    subscription_id = "00000000-0000-0000-0000-00000000000a"
    resource_groups = ["ticketsmith", "ticketsmith-nodes"]
    amount          = 100
    emails          = ["someone@example.com"]
  }

  assert {
    condition     = azurerm_consumption_budget_subscription.this.amount == 100 && azurerm_consumption_budget_subscription.this.time_grain == "Monthly"
    error_message = "the amount is money a month"
  }
  assert {
    condition = toset(flatten([
      for dimension in azurerm_consumption_budget_subscription.this.filter[0].dimension : dimension.values if dimension.name == "ResourceGroupName"
    ])) == toset(["ticketsmith", "ticketsmith-nodes"])
    error_message = "the nodes' resource group is the larger part of the bill"
  }
  assert {
    condition = toset([
      for notice in azurerm_consumption_budget_subscription.this.notification : "${notice.threshold_type} ${notice.threshold}"
    ]) == toset(["Actual 50", "Actual 80", "Actual 100", "Forecasted 100"])
    error_message = "half, most, all, and a forecast of all"
  }
  assert {
    condition = alltrue([
      for notice in azurerm_consumption_budget_subscription.this.notification :
      notice.enabled && notice.contact_emails == tolist(["someone@example.com"])
    ])
    error_message = "every notice must reach somebody"
  }
}
