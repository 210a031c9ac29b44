"""The probe that reads gradients of the policy objective."""
