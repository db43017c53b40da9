# Copy to terraform.tfvars and edit: cp example.tfvars terraform.tfvars
# variables.tf describes every variable. Only `budget` has no default.

# Mails when the month's bill passes 50, 80 and 100 of these (in the subscription's currency).
budget = {
  amount = 100
  emails = ["you@example.com"]
}

location = "eastus"

# Your public address, to reach the cluster and the runs from your machine: `curl https://api.ipify.org`.
# Without it everything is private, and you need a VPN or a jump host in the network (docs/aks.md).
# authorized_ip_ranges = ["203.0.113.7/32"]

# GPU nodes: at most so many at once. Their vCPUs must be within your quota (docs/aks.md).
gpu_pool = {
  vm_size   = "Standard_NC4as_T4_v3"
  max_count = 4
}

# The same on spot capacity: cheaper, and evicted at any moment.
# gpu_spot_pool = { vm_size = "Standard_NC4as_T4_v3", max_count = 4 }

# Nodes of the cluster's own services: AKS asks for two of 4 vCPUs. One saves $5 a day, and is for trying things out.
# system_pool = { min_count = 1 }

# Who administers it: object IDs. Empty: who applied this first, whoever applies it later.
# operators = ["00000000-0000-0000-0000-000000000000"]

# Who else may submit experiments: object IDs of Entra ID users or groups.
# submitters = ["00000000-0000-0000-0000-000000000000"]
