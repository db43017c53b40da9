# What the target file (configs/targets/aks.yaml), the Makefile and deploy/kubernetes need. Nothing here is a secret.

output "resource_group" {
  description = "Resource group of what Terraform made."
  value       = azurerm_resource_group.this.name
}

output "node_resource_group" {
  description = "Resource group that AKS manages: nodes, disks, load balancer."
  value       = local.node_resource_group
}

output "cluster" {
  description = "Name of the cluster."
  value       = module.cluster.name
}

output "private_cluster" {
  description = "Whether the API server can be reached only from within the network."
  value       = module.cluster.private
}

output "registry" {
  description = "Login server of the registry: `image` in the target file begins with it."
  value       = module.registry.login_server
}

output "account" {
  description = "Storage account: `account` in the target file."
  value       = module.storage.account
}

output "store" {
  description = "Store address: `store` in the target file."
  value       = "az://${var.container}/${contains(var.store_prefixes, "runs") ? "runs" : sort(var.store_prefixes)[0]}"
}

output "region" {
  description = "Region of the prices: `region` in the target file."
  value       = var.location
}

output "machines" {
  description = "Machine size of each pool: `machine` in the target file, by the label ticketsmith.io/pool."
  value       = module.cluster.machines
}

output "idle_tail" {
  description = "How long an unused node is paid for: `idle_tail` in the target file. Two minutes are Azure's, to take the machine away."
  value       = "${var.idle_minutes + 2}m"
}

output "client_ids" {
  description = "Client ID of each service account's identity."
  value       = { for account, identity in module.identity : account => identity.client_id }
}

output "kustomization" {
  description = "Kustomize overlay of this installation: deploy/kubernetes/overlays/aks with the client IDs filled in."
  value = templatefile("${path.module}/kustomization.yaml.tftpl", {
    client_ids = { for account, identity in module.identity : account => identity.client_id }
  })
}
