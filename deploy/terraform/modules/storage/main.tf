# Where runs live: one container that is reached with an identity, not with a key, and from within the network.

locals {
  # Storage firewalls take single addresses bare, and no ranges of /31 or /32.
  ip_rules = [for range in var.authorized_ip_ranges : trimsuffix(range, "/32")]

  # Closed to public addresses altogether, unless somebody is to come in by one.
  public = length(var.authorized_ip_ranges) > 0 || var.private_endpoint == null
}

resource "azurerm_storage_account" "this" {
  # checkov:skip=CKV2_AZURE_1:keys of Microsoft encrypt these results of public research well enough; a key vault is another thing to lose
  # checkov:skip=CKV_AZURE_43:checkov does not follow the name to where it is made; a validation and a test check it
  # checkov:skip=CKV_AZURE_36:no service of Azure's has business with the runs; pods and people come by the network
  # checkov:skip=CKV_AZURE_59:closed by default, which tests/storage.tftest.hcl asserts; checkov cannot work out local.public
  # checkov:skip=CKV_AZURE_33:queues are not used
  # checkov:skip=CKV_AZURE_206:runs can be made again: copies in a second region are not worth their price; ZRS is a variable
  name                = var.name
  location            = var.location
  resource_group_name = var.resource_group_name
  tags                = var.tags

  account_kind             = "StorageV2"
  account_tier             = "Standard"
  account_replication_type = var.replication
  access_tier              = "Hot"

  # Identities only: a connection string opens the whole account and does not expire.
  shared_access_key_enabled       = var.shared_access_keys
  default_to_oauth_authentication = true
  local_user_enabled              = false

  https_traffic_only_enabled       = true
  min_tls_version                  = "TLS1_2"
  allow_nested_items_to_be_public  = false
  cross_tenant_replication_enabled = false
  allowed_copy_scope               = "AAD"

  public_network_access_enabled = local.public

  network_rules {
    default_action             = "Deny"
    bypass                     = ["None"]
    ip_rules                   = local.ip_rules
    virtual_network_subnet_ids = var.private_endpoint == null ? [var.nodes_subnet_id] : []
  }

  blob_properties {
    versioning_enabled = true

    delete_retention_policy {
      days = var.recovery_days
    }

    container_delete_retention_policy {
      days = var.recovery_days
    }
  }

  # Whoever allows connection strings hears of SAS tokens that live too long.
  sas_policy {
    expiration_period = "01.00:00:00"
    expiration_action = "Log"
  }

  dynamic "immutability_policy" {
    for_each = var.immutable_days == null ? [] : [var.immutable_days]
    content {
      # Version-level, so that checkpoints may still be written over: each overwritten one stays as a version.
      state                         = "Unlocked"
      period_since_creation_in_days = immutability_policy.value
      allow_protected_append_writes = true
    }
  }

  lifecycle {
    precondition {
      condition     = var.private_endpoint != null || var.nodes_subnet_id != null
      error_message = "storage: without a private endpoint, nodes_subnet_id must name the subnet that may reach the account."
    }
  }
}

resource "azurerm_storage_container" "this" {
  # checkov:skip=CKV2_AZURE_21:reads are not logged by default: `log_analytics` keeps the control plane's logs, and each manifest tells who wrote a run
  name                  = var.container
  storage_account_id    = azurerm_storage_account.this.id
  container_access_type = "private"
}

resource "azurerm_storage_management_policy" "this" {
  storage_account_id = azurerm_storage_account.this.id

  # Scratch: checkpoints, claims, half-written files. Nothing sealed is ever below .work/.
  rule {
    name    = "old-checkpoints"
    enabled = true

    filters {
      blob_types   = ["blockBlob", "appendBlob"]
      prefix_match = [for prefix in var.store_prefixes : join("/", compact([var.container, prefix, ".work/"]))]
    }

    actions {
      base_blob {
        delete_after_days_since_modification_greater_than = var.checkpoint_days
      }
      # A checkpoint is written over every minute or so, and each time leaves a version behind. What this removes stays,
      # and is paid for, for recovery_days more: Azure knows no soft delete by prefix.
      version {
        delete_after_days_since_creation = 1
      }
      snapshot {
        delete_after_days_since_creation_greater_than = 1
      }
    }
  }

  # Versions of everything else: what was deleted or overwritten stays for a while, then goes.
  rule {
    name    = "old-versions"
    enabled = true

    filters {
      blob_types   = ["blockBlob", "appendBlob"]
      prefix_match = ["${var.container}/"]
    }

    actions {
      version {
        delete_after_days_since_creation = var.recovery_days
      }
    }
  }
}

resource "azurerm_private_endpoint" "blob" {
  count = var.private_endpoint == null ? 0 : 1

  name                = "${var.name}-blob"
  location            = var.location
  resource_group_name = var.resource_group_name
  subnet_id           = var.private_endpoint.subnet_id
  tags                = var.tags

  private_service_connection {
    name                           = "blob"
    private_connection_resource_id = azurerm_storage_account.this.id
    subresource_names              = ["blob"]
    is_manual_connection           = false
  }

  private_dns_zone_group {
    name                 = "blob"
    private_dns_zone_ids = [var.private_endpoint.blob_zone_id]
  }
}
