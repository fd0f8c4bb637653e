"""The methods: each is a LightningModule that turns a batch into anomaly maps."""
