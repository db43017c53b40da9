# Where the image lives. Nobody signs in with a password: people and nodes use their Entra ID identity.

locals {
  # Basic and Standard registries have a public address that asks for a sign-in, and no firewall.
  premium = var.sku == "Premium"
}

resource "azurerm_container_registry" "this" {
  # checkov:skip=CKV_AZURE_139:Basic registries have no private address; `registry_sku = "Premium"` gives one
  # checkov:skip=CKV_AZURE_165:one region is enough for nodes of one region
  # checkov:skip=CKV_AZURE_233:zone redundancy is for Premium; an image can be pushed again
  # checkov:skip=CKV_AZURE_237:dedicated data endpoints are for Premium
  # checkov:skip=CKV_AZURE_164:content trust was withdrawn by Azure; images are pinned by digest
  # checkov:skip=CKV_AZURE_166:quarantine needs a scanner that lets images out again
  # checkov:skip=CKV_AZURE_163:scanning is Defender for Cloud's, billed per image and set per subscription
  name                = var.name
  location            = var.location
  resource_group_name = var.resource_group_name
  tags                = var.tags

  sku                           = var.sku
  admin_enabled                 = false
  anonymous_pull_enabled        = false
  public_network_access_enabled = !local.premium || length(var.authorized_ip_ranges) > 0
  network_rule_bypass_option    = "AzureServices"
  retention_policy_in_days      = local.premium ? 7 : null

  dynamic "network_rule_set" {
    for_each = local.premium ? [var.authorized_ip_ranges] : []
    content {
      default_action = "Deny"

      dynamic "ip_rule" {
        for_each = network_rule_set.value
        content {
          action   = "Allow"
          ip_range = ip_rule.value
        }
      }
    }
  }
}

resource "azurerm_private_endpoint" "registry" {
  count = var.private_endpoint == null ? 0 : 1

  name                = "${var.name}-registry"
  location            = var.location
  resource_group_name = var.resource_group_name
  subnet_id           = var.private_endpoint.subnet_id
  tags                = var.tags

  private_service_connection {
    name                           = "registry"
    private_connection_resource_id = azurerm_container_registry.this.id
    subresource_names              = ["registry"]
    is_manual_connection           = false
  }

  private_dns_zone_group {
    name                 = "registry"
    private_dns_zone_ids = [var.private_endpoint.registry_zone_id]
  }
}
