# What the storage account promises: no keys, no way in from the internet, nothing lost by a slip, no old checkpoints.

mock_provider "azurerm" {
  source = "./tests/mocks"
}

variables {
  name                 = "ticketsmith1a2b3c"
  location             = "westeurope"
  resource_group_name  = "ticketsmith"
  tags                 = {}
  container            = "experiments"
  store_prefixes       = ["", "runs"]
  replication          = "LRS"
  checkpoint_days      = 14
  recovery_days        = 7
  immutable_days       = null
  shared_access_keys   = false
  authorized_ip_ranges = []
  nodes_subnet_id      = "/subscriptions/00000000-0000-0000-0000-00000000000a/resourceGroups/ticketsmith/providers/Microsoft.Network/virtualNetworks/ticketsmith/subnets/nodes"
  private_endpoint = {
    subnet_id    = "/subscriptions/00000000-0000-0000-0000-00000000000a/resourceGroups/ticketsmith/providers/Microsoft.Network/virtualNetworks/ticketsmith/subnets/endpoints"
    blob_zone_id = "/subscriptions/00000000-0000-0000-0000-00000000000a/resourceGroups/ticketsmith/providers/Microsoft.Network/privateDnsZones/privatelink.blob.core.windows.net"
  }
}

run "no_keys" {
  command = plan
  module {
    source = "./modules/storage"
  }

  assert {
    condition = (
      azurerm_storage_account.this.shared_access_key_enabled == false &&
      azurerm_storage_account.this.local_user_enabled == false &&
      azurerm_storage_account.this.default_to_oauth_authentication
    )
    error_message = "identities only"
  }
  assert {
    condition = (
      azurerm_storage_account.this.allow_nested_items_to_be_public == false &&
      azurerm_storage_container.this.container_access_type == "private" &&
      azurerm_storage_account.this.cross_tenant_replication_enabled == false
    )
    error_message = "no blob may be made public"
  }
  assert {
    condition     = azurerm_storage_account.this.min_tls_version == "TLS1_2" && azurerm_storage_account.this.https_traffic_only_enabled
    error_message = "TLS 1.2 or better"
  }
}

run "private_by_default" {
  module {
    source = "./modules/storage"
  }

  assert {
    condition     = azurerm_storage_account.this.public_network_access_enabled == false
    error_message = "the account has no public way in"
  }
  assert {
    condition     = azurerm_storage_account.this.network_rules[0].default_action == "Deny" && length(azurerm_storage_account.this.network_rules[0].ip_rules) == 0
    error_message = "and should somebody open it, it lets nobody in"
  }
  assert {
    condition = (
      azurerm_private_endpoint.blob[0].private_service_connection[0].private_connection_resource_id == azurerm_storage_account.this.id &&
      azurerm_private_endpoint.blob[0].private_service_connection[0].subresource_names == tolist(["blob"]) &&
      azurerm_private_endpoint.blob[0].private_dns_zone_group[0].private_dns_zone_ids == tolist([var.private_endpoint.blob_zone_id])
    )
    error_message = "pods must reach blobs by the private endpoint, under the usual name"
  }
}

run "open_to_named_addresses" {
  command = plan
  module {
    source = "./modules/storage"
  }
  variables {
    authorized_ip_ranges = ["203.0.113.7/32", "198.51.100.0/24"]
  }

  assert {
    condition = (
      azurerm_storage_account.this.public_network_access_enabled &&
      azurerm_storage_account.this.network_rules[0].default_action == "Deny" &&
      azurerm_storage_account.this.network_rules[0].ip_rules == toset(["203.0.113.7", "198.51.100.0/24"])
    )
    error_message = "storage firewalls take single addresses without /32, and deny all others"
  }
}

run "without_a_private_endpoint" {
  command = plan
  module {
    source = "./modules/storage"
  }
  variables {
    private_endpoint = null
  }

  assert {
    condition = (
      length(azurerm_private_endpoint.blob) == 0 &&
      azurerm_storage_account.this.network_rules[0].default_action == "Deny" &&
      azurerm_storage_account.this.network_rules[0].virtual_network_subnet_ids == toset([var.nodes_subnet_id])
    )
    error_message = "the public address must answer the nodes' subnet only"
  }
}

run "nothing_is_lost_by_a_slip" {
  command = plan
  module {
    source = "./modules/storage"
  }

  assert {
    condition = (
      azurerm_storage_account.this.blob_properties[0].versioning_enabled &&
      azurerm_storage_account.this.blob_properties[0].delete_retention_policy[0].days == 7 &&
      azurerm_storage_account.this.blob_properties[0].container_delete_retention_policy[0].days == 7
    )
    error_message = "what is deleted or overwritten must stay for recovery_days"
  }
  assert {
    condition     = length(azurerm_storage_account.this.immutability_policy) == 0
    error_message = "immutability is opt-in: it keeps checkpoints too"
  }
}

run "immutable_when_asked_for" {
  command = plan
  module {
    source = "./modules/storage"
  }
  variables {
    immutable_days = 30
  }

  assert {
    condition = (
      azurerm_storage_account.this.immutability_policy[0].state == "Unlocked" &&
      azurerm_storage_account.this.immutability_policy[0].period_since_creation_in_days == 30
    )
    error_message = "versions must be kept for immutable_days, and an owner must be able to lift it"
  }
}

run "old_checkpoints_go" {
  command = plan
  module {
    source = "./modules/storage"
  }

  # The policy belongs to an account that is not there yet at plan.
  override_resource {
    target          = azurerm_storage_account.this
    override_during = plan
    values = {
      id = "/subscriptions/00000000-0000-0000-0000-00000000000a/resourceGroups/ticketsmith/providers/Microsoft.Storage/storageAccounts/ticketsmith1a2b3c"
    }
  }

  assert {
    condition = (
      azurerm_storage_management_policy.this.rule[0].enabled &&
      azurerm_storage_management_policy.this.rule[0].filters[0].prefix_match == toset(["experiments/.work/", "experiments/runs/.work/"])
    )
    error_message = "the rule must cover .work/ of every store, and nothing sealed"
  }
  assert {
    condition = (
      azurerm_storage_management_policy.this.rule[0].actions[0].base_blob[0].delete_after_days_since_modification_greater_than == 14 &&
      azurerm_storage_management_policy.this.rule[0].actions[0].version[0].delete_after_days_since_creation == 1
    )
    error_message = "checkpoints go after checkpoint_days, their overwritten versions after a day"
  }
  assert {
    condition     = length(azurerm_storage_management_policy.this.rule[1].actions[0].base_blob) == 0
    error_message = "outside of .work/ only old versions may ever be removed"
  }
}

run "connection_strings_are_opt_in" {
  command = plan
  module {
    source = "./modules/storage"
  }
  variables {
    shared_access_keys = true
  }

  assert {
    condition     = azurerm_storage_account.this.shared_access_key_enabled
    error_message = "shared_access_keys must allow connection strings"
  }
}
