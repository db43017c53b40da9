terraform {
  required_version = ">= 1.11, < 2.0"

  required_providers {
    azurerm = {
      source  = "hashicorp/azurerm"
      version = "~> 5.0"
    }
  }
}

# The subscription comes from ARM_SUBSCRIPTION_ID, the sign-in from the Azure CLI: neither is written down here.
provider "azurerm" {
  # Should Terraform ever ask for blobs, then as you, and not by a key.
  storage_use_azuread = true

  # A new subscription has none of these registered, and the provider registers nothing by itself.
  resource_providers_to_register = [
    "Microsoft.Compute",
    "Microsoft.Consumption",
    "Microsoft.ContainerRegistry",
    "Microsoft.ContainerService",
    "Microsoft.Insights",
    "Microsoft.ManagedIdentity",
    "Microsoft.Network",
    "Microsoft.OperationalInsights",
    "Microsoft.OperationsManagement",
    "Microsoft.Storage",
  ]

  features {}
}
