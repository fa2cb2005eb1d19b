"""What is optimised: one module a workload, and where its examples come from (``models.data``)."""
