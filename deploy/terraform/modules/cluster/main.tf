# A cluster that runs Jobs: a small pool for its own services, and pools that have no nodes until a Job needs one.

locals {
  private = length(var.authorized_ip_ranges) == 0

  # Every pool is tainted: what says nothing of nodes may hold none of them. configs/targets tolerate these.
  cpu_taint = "ticketsmith.io/pool=cpu:NoSchedule"
  gpu_taint = "sku=gpu:NoSchedule"
  spot_key  = "kubernetes.azure.com/scalesetpriority"

  # Names of pools are short and without '-'; pods choose them by the label ticketsmith.io/pool.
  pools = {
    for name, pool in {
      cpu     = var.cpu_pool == null ? null : merge(var.cpu_pool, { label = "cpu", gpu = false, spot = false })
      gpu     = var.gpu_pool == null ? null : merge(var.gpu_pool, { label = "gpu", gpu = true, spot = false })
      gpuspot = var.gpu_spot_pool == null ? null : merge(var.gpu_spot_pool, { label = "gpu-spot", gpu = true, spot = true })
    } : name => pool if pool != null
  }
}

resource "azurerm_user_assigned_identity" "control_plane" {
  name                = "${var.name}-control-plane"
  location            = var.location
  resource_group_name = var.resource_group_name
  tags                = var.tags
}

# Made before the cluster, which joins nodes, its load balancer and its private DNS zone to the network.
resource "azurerm_role_assignment" "network" {
  scope                = var.virtual_network_id # which holds nothing but this installation
  role_definition_name = "Network Contributor"
  principal_id         = azurerm_user_assigned_identity.control_plane.principal_id
  principal_type       = "ServicePrincipal"
}

# What nodes pull images with. An identity of our own instead of one that AKS makes has its role before the first pull.
resource "azurerm_user_assigned_identity" "kubelet" {
  name                = "${var.name}-kubelet"
  location            = var.location
  resource_group_name = var.resource_group_name
  tags                = var.tags
}

resource "azurerm_role_assignment" "pull" {
  scope                = var.registry_id
  role_definition_name = "AcrPull"
  principal_id         = azurerm_user_assigned_identity.kubelet.principal_id
  principal_type       = "ServicePrincipal"
}

resource "azurerm_role_assignment" "kubelet" {
  scope                = azurerm_user_assigned_identity.kubelet.id # to hand this identity to nodes, and no other
  role_definition_name = "Managed Identity Operator"
  principal_id         = azurerm_user_assigned_identity.control_plane.principal_id
  principal_type       = "ServicePrincipal"
}

resource "azurerm_kubernetes_cluster" "this" {
  # checkov:skip=CKV_AZURE_4:logs cost money by the gigabyte: `log_analytics` turns them on
  # checkov:skip=CKV_AZURE_116:Pod Security Standards and an admission policy of Kubernetes itself do this job without agents
  # checkov:skip=CKV_AZURE_117:disks hold images and scratch, encrypted with keys of Microsoft; runs live in the storage account
  # checkov:skip=CKV_AZURE_172:no secrets store driver: there are no secrets to mount
  # checkov:skip=CKV_AZURE_227:needs a feature that subscriptions have to register for first; disks are encrypted at rest anyhow
  name                = var.name
  location            = var.location
  resource_group_name = var.resource_group_name
  node_resource_group = var.node_resource_group
  tags                = var.tags

  dns_prefix         = var.name
  kubernetes_version = var.kubernetes_version
  sku_tier           = var.sku_tier

  # --- who gets in
  private_cluster_enabled             = local.private
  private_cluster_public_fqdn_enabled = false
  private_dns_zone_id                 = local.private ? "System" : null
  run_command_enabled                 = local.private # needs a node without taints for a while: docs/aks.md, "A private cluster"
  local_account_disabled              = true
  role_based_access_control_enabled   = true

  azure_active_directory_role_based_access_control {
    azure_rbac_enabled = true
    tenant_id          = var.tenant_id
  }

  dynamic "api_server_access_profile" {
    for_each = local.private ? [] : [var.authorized_ip_ranges]
    content {
      authorized_ip_ranges = api_server_access_profile.value
    }
  }

  # --- who pods are
  oidc_issuer_enabled       = true
  workload_identity_enabled = true

  identity {
    type         = "UserAssigned"
    identity_ids = [azurerm_user_assigned_identity.control_plane.id]
  }

  kubelet_identity {
    client_id                 = azurerm_user_assigned_identity.kubelet.client_id
    object_id                 = azurerm_user_assigned_identity.kubelet.principal_id
    user_assigned_identity_id = azurerm_user_assigned_identity.kubelet.id
  }

  # --- network
  network_profile {
    network_plugin      = "azure"
    network_plugin_mode = "overlay"
    network_data_plane  = "cilium"
    network_policy      = "cilium" # without an engine, NetworkPolicies are words
    load_balancer_sku   = "standard"
    outbound_type       = "loadBalancer"
    pod_cidr            = "10.244.0.0/16"
    service_cidr        = "10.0.0.0/16"
    dns_service_ip      = "10.0.0.10"
  }

  # --- nodes
  default_node_pool {
    name                         = "system"
    vm_size                      = var.system_pool.vm_size
    orchestrator_version         = var.kubernetes_version
    auto_scaling_enabled         = true
    min_count                    = var.system_pool.min_count
    max_count                    = var.system_pool.max_count
    only_critical_addons_enabled = true
    os_sku                       = "Ubuntu"
    os_disk_type                 = var.system_pool.os_disk_type
    os_disk_size_gb              = var.system_pool.os_disk_size_gb
    max_pods                     = 110
    vnet_subnet_id               = var.nodes_subnet_id
    node_public_ip_enabled       = false
    temporary_name_for_rotation  = "systemtmp"
    tags                         = var.tags

    upgrade_settings {
      max_surge = "1"
    }
  }

  node_provisioning_profile {
    mode = "Manual" # pools are those below, with prices that are known beforehand
  }

  # Scaling down is what keeps the bill small, so nothing but running work may hold a node.
  auto_scaler_profile {
    expander                                   = "least-waste"
    scale_down_unneeded                        = "${var.idle_minutes}m"
    scale_down_delay_after_add                 = "${var.idle_minutes}m"
    scale_down_delay_after_delete              = "10s"
    scale_down_delay_after_failure             = "1m"
    scale_down_unready                         = "5m"
    skip_nodes_with_local_storage              = false # scratch volumes are not worth a node
    skip_nodes_with_system_pods                = false # nor is a stray pod of kube-system
    ignore_daemonsets_utilization_enabled      = true
    max_graceful_termination_sec               = "120"
    daemonset_eviction_for_empty_nodes_enabled = false
  }

  # --- upkeep: patches by themselves, on Sunday nights. Jobs that a drain hits go on from their checkpoints.
  automatic_upgrade_channel    = "patch"
  node_os_upgrade_channel      = "NodeImage"
  image_cleaner_enabled        = true
  image_cleaner_interval_hours = 168

  maintenance_window_auto_upgrade {
    frequency   = "Weekly"
    interval    = 1
    day_of_week = "Sunday"
    start_time  = "01:00"
    utc_offset  = "+00:00"
    duration    = 4
  }

  maintenance_window_node_os {
    frequency   = "Weekly"
    interval    = 1
    day_of_week = "Sunday"
    start_time  = "05:00"
    utc_offset  = "+00:00"
    duration    = 4
  }

  lifecycle {
    ignore_changes = [default_node_pool[0].node_count] # the autoscaler's
  }

  depends_on = [
    azurerm_role_assignment.network,
    azurerm_role_assignment.kubelet,
    azurerm_role_assignment.pull,
  ]
}

resource "azurerm_kubernetes_cluster_node_pool" "this" {
  # checkov:skip=CKV_AZURE_227:as for the cluster
  for_each = local.pools

  name                  = each.key
  kubernetes_cluster_id = azurerm_kubernetes_cluster.this.id
  mode                  = "User" # only these may have no nodes
  vm_size               = each.value.vm_size
  orchestrator_version  = var.kubernetes_version # a new minor version takes every pool along
  zones                 = length(each.value.zones) > 0 ? each.value.zones : null
  vnet_subnet_id        = var.nodes_subnet_id
  tags                  = var.tags

  # Another size, disk or zone makes the pool anew: meanwhile its nodes are in a pool of this name.
  temporary_name_for_rotation = "${each.key}tmp"

  auto_scaling_enabled = true
  node_count           = 0
  min_count            = 0
  max_count            = each.value.max_count
  scale_down_mode      = "Delete" # a deallocated node still pays for its disk and holds quota

  os_sku                 = "Ubuntu"
  os_disk_type           = each.value.os_disk_type
  os_disk_size_gb        = each.value.os_disk_size_gb
  max_pods               = 50
  node_public_ip_enabled = false
  gpu_driver             = each.value.gpu ? "Install" : null # the device plugin is in deploy/kubernetes

  node_labels = merge(
    { "ticketsmith.io/pool" = each.value.label },
    each.value.spot ? { (local.spot_key) = "spot" } : {},
  )
  node_taints = concat(
    [each.value.gpu ? local.gpu_taint : local.cpu_taint],
    each.value.spot ? ["${local.spot_key}=spot:NoSchedule"] : [],
  )

  priority        = each.value.spot ? "Spot" : "Regular"
  eviction_policy = each.value.spot ? "Delete" : null
  spot_max_price  = each.value.spot ? -1 : null # never evicted for its price, only for capacity

  # An upgrade takes a node away instead of adding one: GPU quota is seldom large enough for one more.
  dynamic "upgrade_settings" {
    for_each = each.value.spot ? [] : ["1"]
    content {
      max_unavailable          = upgrade_settings.value
      drain_timeout_in_minutes = 30
    }
  }

  lifecycle {
    ignore_changes = [node_count] # the autoscaler's
  }
}

resource "azurerm_log_analytics_workspace" "this" {
  count = var.log_analytics == null ? 0 : 1

  name                         = var.name
  location                     = var.location
  resource_group_name          = var.resource_group_name
  tags                         = var.tags
  sku                          = "PerGB2018"
  retention_in_days            = var.log_analytics.retention_in_days
  daily_quota_gb               = var.log_analytics.daily_quota_gb
  local_authentication_enabled = false
}

resource "azurerm_monitor_diagnostic_setting" "control_plane" {
  count = var.log_analytics == null ? 0 : 1

  name                           = "control-plane"
  target_resource_id             = azurerm_kubernetes_cluster.this.id
  log_analytics_workspace_id     = azurerm_log_analytics_workspace.this[0].id
  log_analytics_destination_type = "Dedicated"

  dynamic "enabled_log" {
    # Who changed what, who signed in, and why nodes came and went.
    for_each = toset(["kube-audit-admin", "guard", "cluster-autoscaler"])
    content {
      category = enabled_log.value
    }
  }
}
