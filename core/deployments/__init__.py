"""What should run and what runs: wanted state, the replicas' state machine, the link to the gateway."""
