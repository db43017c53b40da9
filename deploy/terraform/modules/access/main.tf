# What people may do. Operators run the installation; submitters submit experiments to it, and can do nothing else.

locals {
  # `az aks get-credentials` works with this one; it gives no rights in the cluster.
  user = "Azure Kubernetes Service Cluster User Role"

  operator_roles = {
    user  = { scope = var.cluster_id, role = local.user }
    admin = { scope = var.cluster_id, role = "Azure Kubernetes Service RBAC Cluster Admin" }
    push  = { scope = var.registry_id, role = "AcrPush" }
    blobs = { scope = var.container_id, role = "Storage Blob Data Contributor" }
  }
  submitter_roles = {
    user  = { scope = var.cluster_id, role = local.user }
    blobs = { scope = var.container_id, role = "Storage Blob Data Contributor" }
  }

  operators = merge([
    for id in var.operators : { for name, grant in local.operator_roles : "${id}/${name}" => merge(grant, { principal = id }) }
  ]...)
  submitters = merge([
    for id in var.submitters : { for name, grant in local.submitter_roles : "${id}/${name}" => merge(grant, { principal = id }) }
  ]...)
}

resource "azurerm_role_assignment" "operators" {
  for_each = local.operators

  scope                = each.value.scope
  role_definition_name = each.value.role
  principal_id         = each.value.principal
}

resource "azurerm_role_assignment" "submitters" {
  for_each = local.submitters

  scope                = each.value.scope
  role_definition_name = each.value.role
  principal_id         = each.value.principal
}

# Azure's own "RBAC Writer" may also read Secrets and start shells in pods: far more than submitting takes.
resource "azurerm_role_definition" "submitter" {
  count = length(var.submitters) > 0 ? 1 : 0

  name              = "${var.name} submitter (${substr(sha256(var.resource_group_id), 0, 8)})" # unique in the tenant
  scope             = var.resource_group_id
  assignable_scopes = [var.resource_group_id]
  description       = "Submit, watch, read the logs of and cancel Jobs of TicketSmith."

  permissions {
    data_actions = [
      "Microsoft.ContainerService/managedClusters/batch/jobs/read",
      "Microsoft.ContainerService/managedClusters/batch/jobs/write",
      "Microsoft.ContainerService/managedClusters/batch/jobs/delete",
      "Microsoft.ContainerService/managedClusters/pods/read", # their logs included
      "Microsoft.ContainerService/managedClusters/events/read",
    ]
  }
}

resource "azurerm_role_assignment" "submit" {
  for_each = var.submitters

  scope              = "${var.cluster_id}/namespaces/${var.namespace}" # one namespace, not the cluster
  role_definition_id = azurerm_role_definition.submitter[0].role_definition_resource_id
  principal_id       = each.value
}
