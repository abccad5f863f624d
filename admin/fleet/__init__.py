"""Where engines of this house meet the gateway: what they are is the fleet's business, that they answer for models is the gateway's."""
