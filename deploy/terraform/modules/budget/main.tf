# An alert on the month's bill. Azure counts with hours of delay: this is the last line of defence, and stops nothing.
# What stops spending are the deadlines and budgets of Jobs, and pools that go to zero.

resource "azurerm_consumption_budget_subscription" "this" {
  name            = var.name
  subscription_id = "/subscriptions/${var.subscription_id}"
  amount          = var.amount
  time_grain      = "Monthly"

  time_period {
    start_date = formatdate("YYYY-MM-01'T'00:00:00'Z'", plantimestamp())
  }

  # A budget on the resource group would miss the nodes: AKS keeps them, the larger part of the bill, in another one.
  filter {
    dimension {
      name   = "ResourceGroupName"
      values = var.resource_groups
    }
  }

  dynamic "notification" {
    for_each = {
      "Actual/50"      = { type = "Actual", threshold = 50 }
      "Actual/80"      = { type = "Actual", threshold = 80 }
      "Actual/100"     = { type = "Actual", threshold = 100 }
      "Forecasted/100" = { type = "Forecasted", threshold = 100 }
    }
    content {
      enabled        = true
      operator       = "GreaterThanOrEqualTo"
      threshold      = notification.value.threshold
      threshold_type = notification.value.type
      contact_emails = var.emails
    }
  }

  lifecycle {
    ignore_changes = [time_period] # it begins in the month of the first apply
  }
}
