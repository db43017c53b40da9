# What is refused before anything is made. Messages name the variable and the mend.

mock_provider "azurerm" {
  source = "./tests/mocks"
}

variables {
  budget = { amount = 100, emails = ["someone@example.com"] }
}

run "name_too_short" {
  command = plan
  variables {
    name = "abc"
  }
  expect_failures = [var.name]
}

run "name_with_capitals" {
  command = plan
  variables {
    name = "TicketSmith"
  }
  expect_failures = [var.name]
}

run "name_too_long" {
  command = plan
  variables {
    name = "a-name-of-seventeen"
  }
  expect_failures = [var.name]
}

run "location_in_words" {
  command = plan
  variables {
    location = "West Europe"
  }
  expect_failures = [var.location]
}

run "the_whole_internet" {
  command = plan
  variables {
    authorized_ip_ranges = ["0.0.0.0/0"]
  }
  expect_failures = [var.authorized_ip_ranges]
}

run "the_internet_in_halves" {
  command = plan
  variables {
    authorized_ip_ranges = ["0.0.0.0/1", "128.0.0.0/1"]
  }
  expect_failures = [var.authorized_ip_ranges]
}

run "an_address_without_a_mask" {
  command = plan
  variables {
    authorized_ip_ranges = ["203.0.113.7"]
  }
  expect_failures = [var.authorized_ip_ranges]
}

run "a_private_address" {
  command = plan
  variables {
    authorized_ip_ranges = ["192.168.1.20/32"]
  }
  expect_failures = [var.authorized_ip_ranges]
}

run "a_range_that_storage_refuses" {
  command = plan
  variables {
    authorized_ip_ranges = ["203.0.113.6/31"]
  }
  expect_failures = [var.authorized_ip_ranges]
}

run "operators_by_name" {
  command = plan
  variables {
    operators = ["alice@example.com"]
  }
  expect_failures = [var.operators]
}

run "submitters_by_name" {
  command = plan
  variables {
    submitters = ["research-team"]
  }
  expect_failures = [var.submitters]
}

run "kubernetes_too_old" {
  command = plan
  variables {
    kubernetes_version = "1.32"
  }
  expect_failures = [var.kubernetes_version]
}

run "a_patch_version" {
  command = plan
  variables {
    kubernetes_version = "1.34.2"
  }
  expect_failures = [var.kubernetes_version]
}

run "an_unknown_tier" {
  command = plan
  variables {
    sku_tier = "Gold"
  }
  expect_failures = [var.sku_tier]
}

run "nodes_that_idle_for_an_hour" {
  command = plan
  variables {
    idle_minutes = 60
  }
  expect_failures = [var.idle_minutes]
}

run "a_fraction_of_a_minute" {
  command = plan
  variables {
    idle_minutes = 0.5
  }
  expect_failures = [var.idle_minutes]
}

run "a_system_pool_of_zero" {
  command = plan
  variables {
    system_pool = { min_count = 0 }
  }
  expect_failures = [var.system_pool]
}

run "a_system_pool_of_two_cores" {
  command = plan
  variables {
    system_pool = { vm_size = "Standard_D2ads_v5" }
  }
  expect_failures = [var.system_pool]
}

run "a_system_pool_of_two_cores_in_spite_of_its_number" {
  command = plan
  variables {
    system_pool = { vm_size = "Standard_DS11_v2" }
  }
  expect_failures = [var.system_pool]
}

run "a_system_pool_of_burstable_machines" {
  command = plan
  variables {
    system_pool = { vm_size = "Standard_B4ms" }
  }
  expect_failures = [var.system_pool]
}

run "a_cpu_pool_without_nodes" {
  command = plan
  variables {
    cpu_pool = { max_count = 0 }
  }
  expect_failures = [var.cpu_pool]
}

run "a_gpu_pool_without_nodes" {
  command = plan
  variables {
    gpu_pool = { max_count = 0 }
  }
  expect_failures = [var.gpu_pool]
}

run "a_gpu_pool_without_gpus" {
  command = plan
  variables {
    gpu_pool = { vm_size = "Standard_D4s_v5" }
  }
  expect_failures = [var.gpu_pool]
}

run "a_spot_pool_without_gpus" {
  command = plan
  variables {
    gpu_spot_pool = { vm_size = "Standard_D4s_v5" }
  }
  expect_failures = [var.gpu_spot_pool]
}

run "a_spot_pool_of_hundreds" {
  command = plan
  variables {
    gpu_spot_pool = { max_count = 500 }
  }
  expect_failures = [var.gpu_spot_pool]
}

run "a_network_that_is_taken" {
  command = plan
  variables {
    address_space = "10.244.0.0/16"
  }
  expect_failures = [var.address_space]
}

run "a_network_too_small" {
  command = plan
  variables {
    address_space = "10.224.0.0/24"
  }
  expect_failures = [var.address_space]
}

run "logs_for_a_week" {
  command = plan
  variables {
    log_analytics = { retention_in_days = 7 }
  }
  expect_failures = [var.log_analytics]
}

run "a_container_with_capitals" {
  command = plan
  variables {
    container = "Experiments"
  }
  expect_failures = [var.container]
}

run "a_prefix_with_a_slash" {
  command = plan
  variables {
    store_prefixes = ["runs/"]
  }
  expect_failures = [var.store_prefixes]
}

run "a_prefix_with_a_wildcard" {
  command = plan
  variables {
    store_prefixes = ["*"]
  }
  expect_failures = [var.store_prefixes]
}

run "copies_far_away" {
  command = plan
  variables {
    replication = "GRS"
  }
  expect_failures = [var.replication]
}

run "checkpoints_for_a_day" {
  command = plan
  variables {
    checkpoint_days = 1
  }
  expect_failures = [var.checkpoint_days]
}

run "no_recovery" {
  command = plan
  variables {
    recovery_days = 0
  }
  expect_failures = [var.recovery_days]
}

run "immutable_for_no_time" {
  command = plan
  variables {
    immutable_days = 0
  }
  expect_failures = [var.immutable_days]
}

run "an_unknown_registry" {
  command = plan
  variables {
    registry_sku = "Free"
  }
  expect_failures = [var.registry_sku]
}

run "a_budget_of_nothing" {
  command = plan
  variables {
    budget = { amount = 0, emails = ["someone@example.com"] }
  }
  expect_failures = [var.budget]
}

run "a_budget_that_tells_nobody" {
  command = plan
  variables {
    budget = { amount = 100, emails = [] }
  }
  expect_failures = [var.budget]
}

run "a_budget_that_tells_no_address" {
  command = plan
  variables {
    budget = { amount = 100, emails = ["someone"] }
  }
  expect_failures = [var.budget]
}
