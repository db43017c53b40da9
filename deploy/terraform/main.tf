# One installation of TicketSmith on Azure: a private network, a cluster whose GPU nodes exist only while Jobs need them,
# a storage account without keys, a registry, and an alert on the bill. docs/aks.md walks through it.

data "azurerm_client_config" "current" {}

locals {
  tags = merge({ application = "ticketsmith", installation = var.name }, var.tags)

  # Names of storage accounts and registries are unique in all of Azure: six characters of a hash keep them apart.
  unique = "${replace(var.name, "-", "")}${substr(sha256("${data.azurerm_client_config.current.subscription_id}/${var.name}/${var.location}"), 0, 6)}"

  # Nodes, disks and the load balancer live in a resource group that AKS manages. Most of the bill is there.
  node_resource_group = "${var.name}-nodes"

  private_services = concat(var.private_endpoint ? ["blob"] : [], var.registry_sku == "Premium" ? ["registry"] : [])

  # Fixed: deploy/kubernetes and the target files name it too.
  namespace = "ticketsmith"

  operators = length(var.operators) > 0 ? var.operators : toset([terraform_data.installer.input])
}

# Who applied this first. Whoever applies it later takes no roles from them, and gets none: that is what `operators` says.
resource "terraform_data" "installer" {
  input = data.azurerm_client_config.current.object_id

  lifecycle {
    ignore_changes = [input]
  }
}

resource "azurerm_resource_group" "this" {
  name     = var.name
  location = var.location
  tags     = local.tags
}

module "network" {
  source = "./modules/network"

  name                = var.name
  location            = azurerm_resource_group.this.location
  resource_group_name = azurerm_resource_group.this.name
  tags                = local.tags
  address_space       = var.address_space
  service_endpoints   = var.private_endpoint ? [] : ["Microsoft.Storage"]
  private_services    = local.private_services
}

module "storage" {
  source = "./modules/storage"

  name                 = local.unique
  location             = azurerm_resource_group.this.location
  resource_group_name  = azurerm_resource_group.this.name
  tags                 = local.tags
  container            = var.container
  store_prefixes       = var.store_prefixes
  replication          = var.replication
  checkpoint_days      = var.checkpoint_days
  recovery_days        = var.recovery_days
  immutable_days       = var.immutable_days
  shared_access_keys   = var.shared_access_keys
  authorized_ip_ranges = var.authorized_ip_ranges
  nodes_subnet_id      = module.network.nodes_subnet_id
  private_endpoint = !var.private_endpoint ? null : {
    subnet_id    = module.network.endpoints_subnet_id
    blob_zone_id = module.network.zone_ids["blob"]
  }
}

module "registry" {
  source = "./modules/registry"

  name                 = local.unique
  location             = azurerm_resource_group.this.location
  resource_group_name  = azurerm_resource_group.this.name
  tags                 = local.tags
  sku                  = var.registry_sku
  authorized_ip_ranges = var.authorized_ip_ranges
  private_endpoint = var.registry_sku != "Premium" ? null : {
    subnet_id        = module.network.endpoints_subnet_id
    registry_zone_id = module.network.zone_ids["registry"]
  }
}

module "cluster" {
  source = "./modules/cluster"

  name                 = var.name
  location             = azurerm_resource_group.this.location
  resource_group_name  = azurerm_resource_group.this.name
  node_resource_group  = local.node_resource_group
  tenant_id            = data.azurerm_client_config.current.tenant_id
  tags                 = local.tags
  kubernetes_version   = var.kubernetes_version
  sku_tier             = var.sku_tier
  authorized_ip_ranges = var.authorized_ip_ranges
  virtual_network_id   = module.network.virtual_network_id
  nodes_subnet_id      = module.network.nodes_subnet_id
  registry_id          = module.registry.id
  idle_minutes         = var.idle_minutes
  system_pool          = var.system_pool
  cpu_pool             = var.cpu_pool
  gpu_pool             = var.gpu_pool
  gpu_spot_pool        = var.gpu_spot_pool
  log_analytics        = var.log_analytics
}

# One identity for each service account, so that the storage account's logs tell who wrote what.
module "identity" {
  source   = "./modules/identity"
  for_each = toset(["ticketsmith-worker", "ticketsmith-conductor"])

  name                = "${var.name}-${trimprefix(each.key, "ticketsmith-")}"
  location            = azurerm_resource_group.this.location
  resource_group_name = azurerm_resource_group.this.name
  tags                = local.tags
  oidc_issuer_url     = module.cluster.oidc_issuer_url
  namespace           = local.namespace
  service_account     = each.key
  container_id        = module.storage.container_id
}

module "access" {
  source = "./modules/access"

  name              = var.name
  resource_group_id = azurerm_resource_group.this.id
  cluster_id        = module.cluster.id
  registry_id       = module.registry.id
  container_id      = module.storage.container_id
  namespace         = local.namespace
  operators         = local.operators
  submitters        = var.submitters
}

module "budget" {
  source = "./modules/budget"

  name            = var.name
  subscription_id = data.azurerm_client_config.current.subscription_id
  resource_groups = [azurerm_resource_group.this.name, local.node_resource_group]
  amount          = var.budget.amount
  emails          = var.budget.emails
}
