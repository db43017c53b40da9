# Who may do what: pods, operators, submitters. As little as their work takes.

mock_provider "azurerm" {
  source = "./tests/mocks"
}

variables {
  container_id = "/subscriptions/00000000-0000-0000-0000-00000000000a/resourceGroups/ticketsmith/providers/Microsoft.Storage/storageAccounts/ticketsmith/blobServices/default/containers/experiments"
  cluster_id   = "/subscriptions/00000000-0000-0000-0000-00000000000a/resourceGroups/ticketsmith/providers/Microsoft.ContainerService/managedClusters/ticketsmith"
  registry_id  = "/subscriptions/00000000-0000-0000-0000-00000000000a/resourceGroups/ticketsmith/providers/Microsoft.ContainerRegistry/registries/ticketsmith"
  namespace    = "ticketsmith"
}

run "pods" {
  module {
    source = "./modules/identity"
  }
  variables {
    name                = "ticketsmith-worker"
    location            = "westeurope"
    resource_group_name = "ticketsmith"
    tags                = {}
    oidc_issuer_url     = "https://westeurope.oic.prod-aks.azure.com/tenant/issuer/"
    service_account     = "ticketsmith-worker"
  }

  override_resource {
    target = azurerm_user_assigned_identity.this
    values = {
      id           = "/subscriptions/00000000-0000-0000-0000-00000000000a/resourceGroups/ticketsmith/providers/Microsoft.ManagedIdentity/userAssignedIdentities/worker"
      client_id    = "00000000-0000-0000-0000-0000000000f1"
      principal_id = "00000000-0000-0000-0000-0000000000f2"
    }
  }

  assert {
    condition = (
      azurerm_federated_identity_credential.this.subject == "system:serviceaccount:ticketsmith:ticketsmith-worker" &&
      azurerm_federated_identity_credential.this.issuer == "https://westeurope.oic.prod-aks.azure.com/tenant/issuer/" &&
      azurerm_federated_identity_credential.this.audience == tolist(["api://AzureADTokenExchange"])
    )
    error_message = "Azure must trust one service account of one cluster"
  }
  assert {
    condition = (
      azurerm_role_assignment.blobs.scope == var.container_id &&
      azurerm_role_assignment.blobs.role_definition_name == "Storage Blob Data Contributor" &&
      azurerm_role_assignment.blobs.principal_id == "00000000-0000-0000-0000-0000000000f2"
    )
    error_message = "pods may use blobs of the container, not of the account"
  }
  assert {
    condition     = output.client_id == "00000000-0000-0000-0000-0000000000f1"
    error_message = "the annotation of the service account needs the client ID, not the principal's"
  }
}

run "people" {
  module {
    source = "./modules/access"
  }
  variables {
    name              = "ticketsmith"
    resource_group_id = "/subscriptions/00000000-0000-0000-0000-00000000000a/resourceGroups/ticketsmith"
    operators         = ["22222222-2222-2222-2222-222222222222"]
    submitters        = ["11111111-1111-1111-1111-111111111111"]
  }

  assert {
    condition = toset([for grant in azurerm_role_assignment.operators : grant.role_definition_name]) == toset([
      "Azure Kubernetes Service Cluster User Role",
      "Azure Kubernetes Service RBAC Cluster Admin",
      "AcrPush",
      "Storage Blob Data Contributor",
    ])
    error_message = "operators run the installation"
  }
  assert {
    condition = toset([for grant in azurerm_role_assignment.submitters : grant.role_definition_name]) == toset([
      "Azure Kubernetes Service Cluster User Role",
      "Storage Blob Data Contributor",
    ])
    error_message = "submitters sign in, and write what is to be run"
  }
  assert {
    condition     = alltrue([for grant in azurerm_role_assignment.submitters : grant.principal_id == "11111111-1111-1111-1111-111111111111"])
    error_message = "grants must go to those who were named"
  }
  assert {
    condition = (
      azurerm_role_assignment.submit["11111111-1111-1111-1111-111111111111"].scope == "${var.cluster_id}/namespaces/ticketsmith" &&
      azurerm_role_assignment.submit["11111111-1111-1111-1111-111111111111"].role_definition_id == azurerm_role_definition.submitter[0].role_definition_resource_id
    )
    error_message = "submitters may do something in one namespace only"
  }
  assert {
    condition = alltrue([
      for action in azurerm_role_definition.submitter[0].permissions[0].data_actions :
      !strcontains(action, "*") && !strcontains(action, "secrets") && !strcontains(action, "exec") && !strcontains(action, "serviceaccounts")
    ])
    error_message = "no wildcards, no Secrets, no shells"
  }
  assert {
    condition     = length(coalesce(azurerm_role_definition.submitter[0].permissions[0].actions, [])) == 0
    error_message = "submitters may change nothing in Azure"
  }
  assert {
    condition = alltrue([
      for grant in concat(values(azurerm_role_assignment.operators), values(azurerm_role_assignment.submitters)) :
      contains([var.cluster_id, var.registry_id, var.container_id], grant.scope)
    ])
    error_message = "no role on a resource group or a subscription"
  }
}

run "nobody_submits_unless_named" {
  command = plan
  module {
    source = "./modules/access"
  }
  variables {
    name              = "ticketsmith"
    resource_group_id = "/subscriptions/00000000-0000-0000-0000-00000000000a/resourceGroups/ticketsmith"
    operators         = ["22222222-2222-2222-2222-222222222222"]
    submitters        = []
  }

  assert {
    condition     = length(azurerm_role_definition.submitter) == 0 && length(azurerm_role_assignment.submit) == 0
    error_message = "no role that nobody has"
  }
}
