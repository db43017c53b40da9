# Targets for Azure, one for each step of docs/aks.md. They are thin: make shows the commands that it runs.
TERRAFORM ?= terraform -chdir=deploy/terraform
OVERLAY   ?= aks

.PHONY: deploy-plan deploy-infra deploy-credentials deploy-image deploy-render deploy-kubernetes deploy-cost deploy-stop deploy-start deploy-destroy lint-deploy

deploy-plan:  ## Azure: show what would be made; changes nothing
	$(TERRAFORM) init
	$(TERRAFORM) plan

deploy-infra:  ## Azure: make network, cluster, storage account, registry, budget alert (asks first)
	$(TERRAFORM) init
	$(TERRAFORM) apply

deploy-credentials:  ## Azure: add the cluster to your kubeconfig, signed in by the Azure CLI
	group=$$(deploy/output.sh resource_group) && cluster=$$(deploy/output.sh cluster) && \
	  az aks get-credentials --resource-group $$group --name $$cluster
	kubelogin convert-kubeconfig --login azurecli

deploy-image:  ## Azure: build the image, push it to the registry, print its digest
	registry=$$(deploy/output.sh registry) && \
	  $(BUILDER) --build-arg VERSION=$(VERSION) --build-arg COMMIT=$(COMMIT) $(BUILD_ARGS) --tag $$registry/ticketsmith:$(VERSION) . && \
	  az acr login --name $${registry%%.*} --expose-token --query accessToken --output tsv | \
	    $(firstword $(BUILDER)) login $$registry --username 00000000-0000-0000-0000-000000000000 --password-stdin && \
	  $(firstword $(BUILDER)) push $$registry/ticketsmith:$(VERSION) && \
	  az acr repository show --name $${registry%%.*} --image ticketsmith:$(VERSION) --query digest --output tsv

deploy-render:  ## Azure: write what deploy-kubernetes would apply to build/deploy/all.yaml
	mkdir -p build/deploy
	text=$$(deploy/output.sh kustomization) && \
	  echo "$$text" | sed 's,overlays/aks$$,overlays/$(OVERLAY),' > build/deploy/kustomization.yaml
	kubectl kustomize build/deploy > build/deploy/all.yaml

deploy-kubernetes: deploy-render  ## Azure: namespace, accounts, roles, quota, policies, device plugin (OVERLAY=aks-kueue: a queue too)
	kubectl apply --server-side --filename build/deploy/all.yaml

deploy-cost:  ## Azure: what exists now and so costs money, and how many nodes each pool has
	group=$$(deploy/output.sh resource_group) && \
	  az resource list --resource-group $$group --query '[].{type: type, name: name}' --output table
	nodes=$$(deploy/output.sh node_resource_group) && \
	  az resource list --resource-group $$nodes --query '[].{type: type, name: name}' --output table && \
	  az vmss list --resource-group $$nodes --query '[].{pool: name, size: sku.name, nodes: sku.capacity}' --output table

deploy-stop:  ## Azure: stop the cluster, its last nodes too; keeps all runs
	@echo "Cancel experiments that run before (ticketsmith cancel): their pods are killed."
	group=$$(deploy/output.sh resource_group) && cluster=$$(deploy/output.sh cluster) && \
	  az aks stop --resource-group $$group --name $$cluster

deploy-start:  ## Azure: start a stopped cluster
	group=$$(deploy/output.sh resource_group) && cluster=$$(deploy/output.sh cluster) && \
	  az aks start --resource-group $$group --name $$cluster

deploy-destroy:  ## Azure: remove everything, runs in the storage account included (asks first)
	@echo "Cancel experiments that run before (ticketsmith cancel), and pull what you want to keep."
	$(TERRAFORM) destroy

lint-deploy: $(BIN)/.installed-dev  ## Formats, schemas and policies of deploy/, as far as it goes without a network
	BIN=$(BIN) scripts/lint_deploy.sh
