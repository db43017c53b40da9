# The installation as a whole: defaults that are private and cost little, and outputs that target files are filled from.

mock_provider "azurerm" {
  source = "./tests/mocks"
}

variables {
  budget = { amount = 100, emails = ["someone@example.com"] }
}

run "defaults" {
  assert {
    condition     = output.private_cluster
    error_message = "without authorized_ip_ranges the API server must be private"
  }
  assert {
    condition     = output.machines == { cpu = "Standard_D4s_v5", gpu = "Standard_NC4as_T4_v3" }
    error_message = "machines must name the size of each pool, and spot nodes are opt-in"
  }
  assert {
    condition     = output.idle_tail == "5m"
    error_message = "idle_tail is what configs/targets/aks.yaml says"
  }
  assert {
    condition     = output.store == "az://experiments/runs"
    error_message = "store is what configs/targets/aks.yaml says"
  }
  assert {
    condition     = can(regex("^ticketsmith[0-9a-f]{6}$", output.account))
    error_message = "the account's name must be unique and legal: ${output.account}"
  }
  assert {
    condition     = output.registry == "ticketsmith.azurecr.io"
    error_message = "registry must be the login server"
  }
  assert {
    condition     = output.node_resource_group == "ticketsmith-nodes"
    error_message = "the nodes' resource group must have a name that is known beforehand: the budget counts it"
  }
  assert {
    condition     = toset(keys(output.client_ids)) == toset(["ticketsmith-worker", "ticketsmith-conductor"])
    error_message = "each service account of deploy/kubernetes must have an identity"
  }
  assert {
    condition = alltrue([
      for account in ["ticketsmith-worker", "ticketsmith-conductor"] : strcontains(
        output.kustomization, "target: {kind: ServiceAccount, name: ${account}}"
      )
    ])
    error_message = "the overlay must fill in both service accounts"
  }
  assert {
    condition     = yamldecode(output.kustomization).resources == ["../../deploy/kubernetes/overlays/aks"]
    error_message = "the overlay must be YAML on top of the aks overlay"
  }
  assert {
    condition = alltrue([
      for patch in yamldecode(output.kustomization).patches :
      yamldecode(patch.patch)[0].value == "00000000-0000-0000-0000-00000000000d"
    ])
    error_message = "the overlay must carry the client IDs"
  }
}

run "somebody_else_applies" {
  command = plan

  override_data {
    target = data.azurerm_client_config.current
    values = {
      subscription_id = "00000000-0000-0000-0000-00000000000a"
      tenant_id       = "00000000-0000-0000-0000-00000000000b"
      object_id       = "00000000-0000-0000-0000-0000000000ff"
    }
  }

  assert {
    condition     = local.operators == toset(["00000000-0000-0000-0000-00000000000c"])
    error_message = "a second person's apply may not take the first one's roles"
  }
}

run "everything_on" {
  variables {
    name                 = "labs"
    authorized_ip_ranges = ["203.0.113.7/32", "198.51.100.0/24"]
    gpu_spot_pool        = { max_count = 8 }
    log_analytics        = {}
    immutable_days       = 30
    registry_sku         = "Premium"
    private_endpoint     = false
    submitters           = ["11111111-1111-1111-1111-111111111111"]
    operators            = ["22222222-2222-2222-2222-222222222222"]
    kubernetes_version   = "1.35"
    store_prefixes       = ["team-a", "team-b"]
  }

  assert {
    condition     = !output.private_cluster
    error_message = "with authorized_ip_ranges the API server has a public address"
  }
  assert {
    condition     = output.machines["gpu-spot"] == "Standard_NC4as_T4_v3"
    error_message = "the spot pool must be there"
  }
  assert {
    condition     = output.store == "az://experiments/team-a"
    error_message = "store must name one of the prefixes"
  }
  assert {
    condition     = output.resource_group == "labs" && output.cluster == "labs"
    error_message = "names must begin with the installation's"
  }
}

run "no_gpus_at_all" {
  command = plan

  variables {
    gpu_pool = null
  }

  assert {
    condition     = output.machines == { cpu = "Standard_D4s_v5" }
    error_message = "gpu_pool = null must leave the CPU pool only"
  }
}
