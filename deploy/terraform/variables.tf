variable "name" {
  description = "Begins the names of all resources, so that several installations can share a subscription."
  type        = string
  default     = "ticketsmith"
  nullable    = false

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{2,14}[a-z0-9]$", var.name))
    error_message = "name: 4 to 16 small letters, digits and '-', beginning with a letter and not ending with '-'."
  }
}

variable "location" {
  description = "Azure region of everything. It must offer the GPU size: `az vm list-skus --location REGION --size Standard_NC`."
  type        = string
  default     = "eastus"
  nullable    = false

  validation {
    condition     = can(regex("^[a-z]+[a-z0-9]*$", var.location))
    error_message = "location: the short name of a region, such as eastus (`az account list-locations -o table`)."
  }
}

variable "tags" {
  description = "Tags of every resource."
  type        = map(string)
  default     = {}
  nullable    = false
}

# --- who may reach it -------------------------------------------------------------------------------------------------

variable "authorized_ip_ranges" {
  description = <<-EOT
    Public IPv4 ranges, in CIDR form, that may reach the API server and the storage account from outside of the virtual
    network: your office or your own address, for example ["203.0.113.7/32"].
    Empty, the default: neither has a public address, and you need a VPN, or a jump host in the network.
  EOT
  type        = list(string)
  default     = []
  nullable    = false

  validation {
    condition = alltrue([
      for range in var.authorized_ip_ranges : can(cidrnetmask(range)) && can(regex("/(8|9|[12][0-9]|30|32)$", range))
    ])
    error_message = "authorized_ip_ranges: IPv4 ranges such as 203.0.113.7/32, none wider than /8: the internet as a whole may not be let in. Not /31, which Azure's storage firewall refuses: two ranges of /32 are the same."
  }

  validation {
    condition = !anytrue([
      for range in var.authorized_ip_ranges : can(regex("^(10\\.|192\\.168\\.|172\\.(1[6-9]|2[0-9]|3[01])\\.)", range))
    ])
    error_message = "authorized_ip_ranges: public addresses only. Azure sees the address of your router (`curl https://api.ipify.org`), not the one of your machine."
  }
}

variable "operators" {
  description = "Entra ID object IDs of people or groups that administer the cluster, push images and read runs. Empty: who ran Terraform first."
  type        = set(string)
  default     = []
  nullable    = false

  validation {
    condition     = alltrue([for id in var.operators : can(regex("^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$", id))])
    error_message = "operators: object IDs (GUIDs), not names: `az ad group show --group NAME --query id -o tsv`."
  }
}

variable "submitters" {
  description = "Entra ID object IDs of people, groups or pipelines that may submit experiments, and nothing else."
  type        = set(string)
  default     = []
  nullable    = false

  validation {
    condition     = alltrue([for id in var.submitters : can(regex("^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$", id))])
    error_message = "submitters: object IDs (GUIDs), not names: `az ad group show --group NAME --query id -o tsv`."
  }
}

# --- the cluster ------------------------------------------------------------------------------------------------------

variable "kubernetes_version" {
  description = "Minor version such as 1.34, of the control plane and of every pool; null takes the one that AKS recommends. TicketSmith needs 1.33 or newer."
  type        = string
  default     = null

  validation {
    condition     = var.kubernetes_version == null || can(regex("^1\\.(3[3-9]|[4-9][0-9])$", var.kubernetes_version))
    error_message = "kubernetes_version: a minor version of 1.33 or newer, such as 1.34, since Jobs use per-index back-off (`az aks get-versions --location REGION -o table`). Patches come by themselves: AKS refuses a patch version beside that."
  }
}

variable "sku_tier" {
  description = "Free: no charge and no uptime guarantee, enough for batch work. Standard: a charge an hour, and a guarantee."
  type        = string
  default     = "Free"
  nullable    = false

  validation {
    condition     = contains(["Free", "Standard"], var.sku_tier)
    error_message = "sku_tier: Free or Standard."
  }
}

variable "idle_minutes" {
  description = "Minutes after which a node that nobody uses is removed. Each burst of work pays for this tail once a node."
  type        = number
  default     = 3
  nullable    = false

  validation {
    condition     = var.idle_minutes >= 1 && var.idle_minutes <= 30 && floor(var.idle_minutes) == var.idle_minutes
    error_message = "idle_minutes: a whole number from 1 to 30. An idle GPU node costs as much as a busy one."
  }
}

variable "system_pool" {
  description = "Nodes of the cluster's own services; the only pool that never goes to zero. AKS asks for two nodes of 4 vCPUs."
  type = object({
    vm_size         = optional(string, "Standard_D4ads_v5")
    min_count       = optional(number, 2)
    max_count       = optional(number, 3)
    os_disk_type    = optional(string, "Ephemeral")
    os_disk_size_gb = optional(number, 64)
  })
  default  = {}
  nullable = false

  validation {
    condition     = var.system_pool.min_count >= 1 && var.system_pool.max_count >= var.system_pool.min_count
    error_message = "system_pool: min_count must be at least 1 (AKS does not allow less), and max_count no less than min_count."
  }

  validation {
    condition     = can(regex("^Standard_([AC-Z][A-Z]*([4-9]|[1-9][0-9]+)|DS?3_v2$)", var.system_pool.vm_size))
    error_message = "system_pool: vm_size must have 4 vCPUs or more, and be none of the B sizes: AKS asks for that."
  }

  validation {
    condition     = !can(regex("^Standard_(A5|DS?11|[A-Z]+[0-9]+-[1-3])([^0-9]|$)", var.system_pool.vm_size))
    error_message = "system_pool: vm_size has fewer than 4 vCPUs in spite of its number (A5, D11, E4-2s_v5 and their like)."
  }
}

variable "cpu_pool" {
  description = "Nodes of conductors and reports: they exist while there are such pods. Label and taint ticketsmith.io/pool=cpu."
  type = object({
    vm_size         = optional(string, "Standard_D4s_v5")
    max_count       = optional(number, 2)
    os_disk_type    = optional(string, "Managed")
    os_disk_size_gb = optional(number, 64)
    zones           = optional(list(string), [])
  })
  default  = {}
  nullable = false

  validation {
    condition     = var.cpu_pool.max_count >= 1 && var.cpu_pool.max_count <= 20
    error_message = "cpu_pool: max_count from 1 to 20. It always begins and ends at zero nodes."
  }
}

variable "gpu_pool" {
  description = "GPU nodes: zero until a Job needs one. Label ticketsmith.io/pool=gpu. null: no such pool."
  type = object({
    vm_size         = optional(string, "Standard_NC4as_T4_v3")
    max_count       = optional(number, 4)
    os_disk_type    = optional(string, "Ephemeral")
    os_disk_size_gb = optional(number, 128)
    zones           = optional(list(string), [])
  })
  default = {}

  validation {
    condition     = var.gpu_pool == null || try(var.gpu_pool.max_count >= 1 && var.gpu_pool.max_count <= 50, false)
    error_message = "gpu_pool: max_count from 1 to 50. It always begins and ends at zero nodes; set gpu_pool = null to have none."
  }

  validation {
    condition     = var.gpu_pool == null || can(regex("^Standard_N[CDV]", var.gpu_pool.vm_size))
    error_message = "gpu_pool: vm_size must be a size with a GPU, such as Standard_NC4as_T4_v3."
  }
}

variable "gpu_spot_pool" {
  description = "The same on spot capacity: cheaper, and evicted at any moment. Label ticketsmith.io/pool=gpu-spot. null, the default: none."
  type = object({
    vm_size         = optional(string, "Standard_NC4as_T4_v3")
    max_count       = optional(number, 4)
    os_disk_type    = optional(string, "Ephemeral")
    os_disk_size_gb = optional(number, 128)
    zones           = optional(list(string), [])
  })
  default = null

  validation {
    condition     = var.gpu_spot_pool == null || try(var.gpu_spot_pool.max_count >= 1 && var.gpu_spot_pool.max_count <= 50, false)
    error_message = "gpu_spot_pool: max_count from 1 to 50. It always begins and ends at zero nodes; leave it null to have none."
  }

  validation {
    condition     = var.gpu_spot_pool == null || can(regex("^Standard_N[CDV]", var.gpu_spot_pool.vm_size))
    error_message = "gpu_spot_pool: vm_size must be a size with a GPU, such as Standard_NC4as_T4_v3."
  }
}

variable "address_space" {
  description = "Range of the virtual network, /16 to /19. Choose another one only when it is peered with a network that uses it too."
  type        = string
  default     = "10.224.0.0/16"
  nullable    = false

  validation {
    condition     = can(cidrnetmask(var.address_space)) && can(regex("/1[6-9]$", var.address_space))
    error_message = "address_space: an IPv4 range of /16 to /19, such as 10.224.0.0/16."
  }

  validation {
    condition     = !can(regex("^10\\.(0|244)\\.", var.address_space))
    error_message = "address_space: 10.0.0.0/16 and 10.244.0.0/16 are taken by the cluster's services and pods."
  }
}

variable "log_analytics" {
  description = "Keep the control plane's audit, sign-in and autoscaler logs in Log Analytics. Billed by the gigabyte; capped at daily_quota_gb."
  type = object({
    retention_in_days = optional(number, 30)
    daily_quota_gb    = optional(number, 1)
  })
  default = null

  validation {
    condition     = var.log_analytics == null || try(var.log_analytics.retention_in_days >= 30 && var.log_analytics.daily_quota_gb > 0, false)
    error_message = "log_analytics: retention_in_days of 30 or more, and a daily_quota_gb above 0."
  }
}

# --- store and registry -----------------------------------------------------------------------------------------------

variable "container" {
  description = "Blob container of the runs: az://CONTAINER/PREFIX in a target file."
  type        = string
  default     = "experiments"
  nullable    = false

  validation {
    condition     = can(regex("^[a-z0-9](-?[a-z0-9]){2,62}$", var.container))
    error_message = "container: 3 to 63 small letters, digits and single '-'."
  }
}

variable "store_prefixes" {
  description = "Prefixes of your stores: \"runs\" for az://experiments/runs, \"\" for az://experiments. Old checkpoints are removed below each of them."
  type        = set(string)
  default     = ["", "runs"]
  nullable    = false

  validation {
    condition     = length(var.store_prefixes) >= 1 && length(var.store_prefixes) <= 10
    error_message = "store_prefixes: 1 to 10 of them, as many as a lifecycle rule takes."
  }

  validation {
    condition     = alltrue([for prefix in var.store_prefixes : !startswith(prefix, "/") && !endswith(prefix, "/") && !strcontains(prefix, "*")])
    error_message = "store_prefixes: without '/' at the ends and without wildcards, as after az://CONTAINER/."
  }
}

variable "replication" {
  description = "Copies of the runs: LRS (three in one data centre) or ZRS (three zones)."
  type        = string
  default     = "LRS"
  nullable    = false

  validation {
    condition     = contains(["LRS", "ZRS"], var.replication)
    error_message = "replication: LRS or ZRS. Runs can be made again; copies in another region are not worth their price."
  }
}

variable "checkpoint_days" {
  description = "Days after which a checkpoint that nobody wrote again is removed. Its run then begins again when it is resumed."
  type        = number
  default     = 14
  nullable    = false

  validation {
    condition     = var.checkpoint_days >= 2 && var.checkpoint_days <= 365
    error_message = "checkpoint_days: 2 to 365. Fewer could remove the checkpoint of a run that waits for a node over a weekend."
  }
}

variable "recovery_days" {
  description = "Days for which deleted or overwritten blobs, and a deleted container, can be had back. Checkpoints stay, and are paid for, as long."
  type        = number
  default     = 7
  nullable    = false

  validation {
    condition     = var.recovery_days >= 1 && var.recovery_days <= 365
    error_message = "recovery_days: 1 to 365."
  }
}

variable "immutable_days" {
  description = <<-EOT
    Days for which no version of a blob can be removed by anybody (version-level WORM, unlocked: an owner can still lift it).
    null, the default: TicketSmith never overwrites sealed runs, and deleted blobs can be had back for recovery_days.
    Can be set only when the storage account is made; checkpoints are kept for as long too, and paid for.
  EOT
  type        = number
  default     = null

  validation {
    condition     = var.immutable_days == null || try(var.immutable_days >= 1 && var.immutable_days <= 3650, false)
    error_message = "immutable_days: 1 to 3650, or null."
  }
}

variable "shared_access_keys" {
  description = "Allow connection strings. Needed only for pods that cannot use Workload Identity: a key opens the whole account, and does not expire."
  type        = bool
  default     = false
  nullable    = false
}

variable "private_endpoint" {
  description = "Reach the storage account by a private address (billed an hour). false: by its public address, open to the nodes' subnet only."
  type        = bool
  default     = true
  nullable    = false
}

variable "registry_sku" {
  description = "Basic is the cheapest; its public address asks for an Entra ID sign-in. Premium has a private address too, at ten times the price."
  type        = string
  default     = "Basic"
  nullable    = false

  validation {
    condition     = contains(["Basic", "Standard", "Premium"], var.registry_sku)
    error_message = "registry_sku: Basic, Standard or Premium."
  }
}

# --- the budget alert -------------------------------------------------------------------------------------------------

variable "budget" {
  description = "Mails when the month's bill of this installation passes shares of `amount` (in the subscription's currency). It tells; it stops nothing."
  type = object({
    amount = number
    emails = list(string)
  })
  nullable = false

  validation {
    condition     = var.budget.amount >= 1
    error_message = "budget: amount is money a month, 1 or more."
  }

  validation {
    condition     = length(var.budget.emails) >= 1 && alltrue([for email in var.budget.emails : can(regex("^[^@\\s]+@[^@\\s]+\\.[^@\\s]+$", email))])
    error_message = "budget: emails needs at least one address; an alert that reaches nobody guards nothing."
  }
}
