# What the cluster promises: nothing runs unless a Job needs it, and nobody gets in who was not named.

mock_provider "azurerm" {
  source = "./tests/mocks"
}

variables {
  name                 = "ticketsmith"
  location             = "westeurope"
  resource_group_name  = "ticketsmith"
  node_resource_group  = "ticketsmith-nodes"
  tenant_id            = "00000000-0000-0000-0000-00000000000b"
  tags                 = {}
  kubernetes_version   = null
  sku_tier             = "Free"
  authorized_ip_ranges = []
  virtual_network_id   = "/subscriptions/00000000-0000-0000-0000-00000000000a/resourceGroups/ticketsmith/providers/Microsoft.Network/virtualNetworks/ticketsmith"
  nodes_subnet_id      = "/subscriptions/00000000-0000-0000-0000-00000000000a/resourceGroups/ticketsmith/providers/Microsoft.Network/virtualNetworks/ticketsmith/subnets/nodes"
  registry_id          = "/subscriptions/00000000-0000-0000-0000-00000000000a/resourceGroups/ticketsmith/providers/Microsoft.ContainerRegistry/registries/ticketsmith"
  idle_minutes         = 3
  log_analytics        = null

  system_pool = {
    vm_size         = "Standard_D4ads_v5"
    min_count       = 2
    max_count       = 3
    os_disk_type    = "Ephemeral"
    os_disk_size_gb = 64
  }
  cpu_pool = {
    vm_size         = "Standard_D4s_v5"
    max_count       = 2
    os_disk_type    = "Managed"
    os_disk_size_gb = 64
    zones           = []
  }
  gpu_pool = {
    vm_size         = "Standard_NC4as_T4_v3"
    max_count       = 4
    os_disk_type    = "Ephemeral"
    os_disk_size_gb = 128
    zones           = []
  }
  gpu_spot_pool = {
    vm_size         = "Standard_NC4as_T4_v3"
    max_count       = 8
    os_disk_type    = "Ephemeral"
    os_disk_size_gb = 128
    zones           = ["1"]
  }
}

run "pools_scale_to_zero" {
  command = plan
  module {
    source = "./modules/cluster"
  }

  assert {
    condition     = toset(keys(azurerm_kubernetes_cluster_node_pool.this)) == toset(["cpu", "gpu", "gpuspot"])
    error_message = "there must be one pool of each kind"
  }
  assert {
    condition = alltrue([
      for pool in azurerm_kubernetes_cluster_node_pool.this :
      pool.auto_scaling_enabled && pool.min_count == 0 && pool.node_count == 0 && pool.mode == "User" && pool.scale_down_mode == "Delete"
    ])
    error_message = "every pool but the system pool must begin and end at zero nodes, and delete them"
  }
  assert {
    condition     = azurerm_kubernetes_cluster_node_pool.this["gpu"].max_count == 4 && azurerm_kubernetes_cluster_node_pool.this["gpuspot"].max_count == 8
    error_message = "max_count is the guardrail of a pool"
  }
  assert {
    condition = (
      azurerm_kubernetes_cluster.this.default_node_pool[0].min_count == 2 &&
      azurerm_kubernetes_cluster.this.default_node_pool[0].max_count == 3 &&
      azurerm_kubernetes_cluster.this.default_node_pool[0].only_critical_addons_enabled
    )
    error_message = "the system pool keeps the cluster's own services, and no Jobs"
  }
}

run "unused_nodes_go_soon" {
  command = plan
  module {
    source = "./modules/cluster"
  }

  assert {
    condition = (
      azurerm_kubernetes_cluster.this.auto_scaler_profile[0].scale_down_unneeded == "3m" &&
      azurerm_kubernetes_cluster.this.auto_scaler_profile[0].scale_down_delay_after_add == "3m"
    )
    error_message = "idle_minutes must set both delays of the autoscaler"
  }
  assert {
    condition = (
      azurerm_kubernetes_cluster.this.auto_scaler_profile[0].skip_nodes_with_local_storage == false &&
      azurerm_kubernetes_cluster.this.auto_scaler_profile[0].skip_nodes_with_system_pods == false
    )
    error_message = "scratch volumes and stray system pods may not hold a node"
  }
  assert {
    condition     = azurerm_kubernetes_cluster.this.node_provisioning_profile[0].mode == "Manual"
    error_message = "no node of a size that has no known price"
  }
}

run "labels_and_taints" {
  command = plan
  module {
    source = "./modules/cluster"
  }

  assert {
    condition     = azurerm_kubernetes_cluster_node_pool.this["gpu"].node_taints == tolist(["sku=gpu:NoSchedule"])
    error_message = "GPU nodes must be kept for pods that tolerate sku=gpu"
  }
  assert {
    condition = azurerm_kubernetes_cluster_node_pool.this["gpuspot"].node_taints == tolist([
      "sku=gpu:NoSchedule", "kubernetes.azure.com/scalesetpriority=spot:NoSchedule"
    ])
    error_message = "spot GPU nodes must carry both taints"
  }
  assert {
    condition     = azurerm_kubernetes_cluster_node_pool.this["cpu"].node_taints == tolist(["ticketsmith.io/pool=cpu:NoSchedule"])
    error_message = "what says nothing of nodes may hold no CPU node"
  }
  assert {
    condition = (
      azurerm_kubernetes_cluster_node_pool.this["cpu"].node_labels == tomap({ "ticketsmith.io/pool" = "cpu" }) &&
      azurerm_kubernetes_cluster_node_pool.this["gpu"].node_labels == tomap({ "ticketsmith.io/pool" = "gpu" }) &&
      azurerm_kubernetes_cluster_node_pool.this["gpuspot"].node_labels == tomap({
        "ticketsmith.io/pool"                   = "gpu-spot"
        "kubernetes.azure.com/scalesetpriority" = "spot"
      })
    )
    error_message = "labels must be those of the node selectors in configs/targets"
  }
}

run "spot_nodes" {
  command = plan
  module {
    source = "./modules/cluster"
  }

  assert {
    condition = (
      azurerm_kubernetes_cluster_node_pool.this["gpuspot"].priority == "Spot" &&
      azurerm_kubernetes_cluster_node_pool.this["gpuspot"].eviction_policy == "Delete" &&
      azurerm_kubernetes_cluster_node_pool.this["gpuspot"].spot_max_price == -1
    )
    error_message = "evicted nodes must be deleted, and never for their price"
  }
  assert {
    condition     = length(azurerm_kubernetes_cluster_node_pool.this["gpuspot"].upgrade_settings) == 0
    error_message = "Azure refuses upgrade settings of spot pools"
  }
  assert {
    condition = (
      azurerm_kubernetes_cluster_node_pool.this["gpu"].priority == "Regular" &&
      azurerm_kubernetes_cluster_node_pool.this["gpu"].upgrade_settings[0].max_unavailable == "1"
    )
    error_message = "an upgrade of GPU nodes must not need quota for one more"
  }
}

run "a_new_version_takes_every_pool_along" {
  command = plan
  module {
    source = "./modules/cluster"
  }
  variables {
    kubernetes_version = "1.34"
  }

  assert {
    condition = (
      azurerm_kubernetes_cluster.this.kubernetes_version == "1.34" &&
      azurerm_kubernetes_cluster.this.default_node_pool[0].orchestrator_version == "1.34" &&
      alltrue([for pool in azurerm_kubernetes_cluster_node_pool.this : pool.orchestrator_version == "1.34"])
    )
    error_message = "no pool may stay behind"
  }
}

run "pools_can_be_changed" {
  command = plan
  module {
    source = "./modules/cluster"
  }

  assert {
    condition = (
      azurerm_kubernetes_cluster_node_pool.this["cpu"].temporary_name_for_rotation == "cputmp" &&
      azurerm_kubernetes_cluster_node_pool.this["gpu"].temporary_name_for_rotation == "gputmp" &&
      azurerm_kubernetes_cluster_node_pool.this["gpuspot"].temporary_name_for_rotation == "gpuspottmp"
    )
    error_message = "without a temporary name of 12 letters at most, another size plans well and fails at apply"
  }
  assert {
    condition = (
      azurerm_kubernetes_cluster_node_pool.this["cpu"].vm_size == "Standard_D4s_v5" &&
      azurerm_kubernetes_cluster_node_pool.this["gpu"].vm_size == "Standard_NC4as_T4_v3" &&
      azurerm_kubernetes_cluster_node_pool.this["gpuspot"].zones == toset(["1"])
    )
    error_message = "each pool has the size and zones that were asked for"
  }
}

run "identities" {
  module {
    source = "./modules/cluster"
  }

  # Each identity is somebody: with one principal for all, any role could go to any of them.
  override_resource {
    target = azurerm_user_assigned_identity.control_plane
    values = {
      id           = "/subscriptions/00000000-0000-0000-0000-00000000000a/resourceGroups/ticketsmith/providers/Microsoft.ManagedIdentity/userAssignedIdentities/control-plane"
      client_id    = "00000000-0000-0000-0000-0000000000c1"
      principal_id = "00000000-0000-0000-0000-0000000000c2"
    }
  }
  override_resource {
    target = azurerm_user_assigned_identity.kubelet
    values = {
      id           = "/subscriptions/00000000-0000-0000-0000-00000000000a/resourceGroups/ticketsmith/providers/Microsoft.ManagedIdentity/userAssignedIdentities/kubelet"
      client_id    = "00000000-0000-0000-0000-0000000000b1"
      principal_id = "00000000-0000-0000-0000-0000000000b2"
    }
  }

  assert {
    condition = (
      azurerm_role_assignment.pull.principal_id == "00000000-0000-0000-0000-0000000000b2" &&
      azurerm_role_assignment.network.principal_id == "00000000-0000-0000-0000-0000000000c2" &&
      azurerm_role_assignment.kubelet.principal_id == "00000000-0000-0000-0000-0000000000c2"
    )
    error_message = "nodes pull; the control plane joins nodes to the network, and hands them their identity"
  }
  assert {
    condition = (
      azurerm_kubernetes_cluster.this.kubelet_identity[0].object_id == "00000000-0000-0000-0000-0000000000b2" &&
      azurerm_kubernetes_cluster.this.kubelet_identity[0].client_id == "00000000-0000-0000-0000-0000000000b1" &&
      azurerm_kubernetes_cluster.this.kubelet_identity[0].user_assigned_identity_id == azurerm_user_assigned_identity.kubelet.id &&
      toset(azurerm_kubernetes_cluster.this.identity[0].identity_ids) == toset([azurerm_user_assigned_identity.control_plane.id])
    )
    error_message = "nodes and control plane are two identities"
  }

  assert {
    condition = (
      azurerm_kubernetes_cluster.this.oidc_issuer_enabled && azurerm_kubernetes_cluster.this.workload_identity_enabled &&
      azurerm_kubernetes_cluster.this.local_account_disabled &&
      azurerm_kubernetes_cluster.this.azure_active_directory_role_based_access_control[0].azure_rbac_enabled
    )
    error_message = "people and pods are identities of Entra ID; there are no local accounts"
  }
  assert {
    condition     = azurerm_kubernetes_cluster.this.identity[0].type == "UserAssigned"
    error_message = "the control plane's identity must be there before the cluster, to be given its role"
  }
  assert {
    condition     = azurerm_role_assignment.pull.role_definition_name == "AcrPull" && azurerm_role_assignment.pull.scope == var.registry_id
    error_message = "nodes may pull from the registry, and no more"
  }
  assert {
    condition     = azurerm_role_assignment.network.scope == var.virtual_network_id
    error_message = "the control plane's role ends at the network"
  }
  assert {
    condition     = azurerm_role_assignment.kubelet.scope == azurerm_user_assigned_identity.kubelet.id
    error_message = "the control plane may hand out one identity"
  }
}

run "private_by_default" {
  command = plan
  module {
    source = "./modules/cluster"
  }

  assert {
    condition = (
      azurerm_kubernetes_cluster.this.private_cluster_enabled &&
      azurerm_kubernetes_cluster.this.private_cluster_public_fqdn_enabled == false &&
      length(azurerm_kubernetes_cluster.this.api_server_access_profile) == 0
    )
    error_message = "without authorized ranges the API server has no public address"
  }
  assert {
    condition = (
      azurerm_kubernetes_cluster.this.network_profile[0].network_policy == "cilium" &&
      azurerm_kubernetes_cluster.this.network_profile[0].network_data_plane == "cilium"
    )
    error_message = "network policies must be enforced"
  }
  assert {
    condition     = alltrue([for pool in azurerm_kubernetes_cluster_node_pool.this : pool.node_public_ip_enabled == false])
    error_message = "nodes have no public addresses"
  }
  assert {
    condition     = length(azurerm_log_analytics_workspace.this) == 0
    error_message = "logs are opt-in: they cost by the gigabyte"
  }
}

run "public_for_named_addresses_only" {
  command = plan
  module {
    source = "./modules/cluster"
  }
  variables {
    authorized_ip_ranges = ["203.0.113.7/32"]
  }

  assert {
    condition = (
      azurerm_kubernetes_cluster.this.private_cluster_enabled == false &&
      azurerm_kubernetes_cluster.this.run_command_enabled == false &&
      azurerm_kubernetes_cluster.this.api_server_access_profile[0].authorized_ip_ranges == toset(["203.0.113.7/32"])
    )
    error_message = "a public API server must answer the named addresses only"
  }
}

run "upkeep" {
  command = plan
  module {
    source = "./modules/cluster"
  }

  assert {
    condition = (
      azurerm_kubernetes_cluster.this.automatic_upgrade_channel == "patch" &&
      azurerm_kubernetes_cluster.this.node_os_upgrade_channel == "NodeImage" &&
      azurerm_kubernetes_cluster.this.maintenance_window_auto_upgrade[0].day_of_week == "Sunday" &&
      azurerm_kubernetes_cluster.this.maintenance_window_node_os[0].day_of_week == "Sunday"
    )
    error_message = "patches must come by themselves, within a window"
  }
}

run "logs_when_asked_for" {
  module {
    source = "./modules/cluster"
  }
  variables {
    log_analytics = { retention_in_days = 30, daily_quota_gb = 1 }
  }

  assert {
    condition     = azurerm_log_analytics_workspace.this[0].daily_quota_gb == 1
    error_message = "the daily cap must be set"
  }
  assert {
    condition = toset([for log in azurerm_monitor_diagnostic_setting.control_plane[0].enabled_log : log.category]) == toset([
      "kube-audit-admin", "guard", "cluster-autoscaler"
    ])
    error_message = "who changed what, who signed in, why nodes came and went"
  }
}
