"""What the built-in guards know by name: read at every start, while what finds it is loaded with the first guard."""

from typing import Final

ENTITIES: Final = (
    "email", "iban", "credit_card", "phone", "ip_address", "us_ssn", "uk_nino", "br_cpf", "es_dni", "it_fiscal_code", "fr_nir",
    "in_aadhaar", "ca_sin", "pl_pesel",
)  # fmt: skip
# Those that Presidio finds, under its own names; the first are those that it looks for if nothing is said.
NAMED_USUALLY: Final = (
    "person", "location", "nrp", "date_time", "crypto", "medical_license", "us_passport", "us_driver_license", "us_bank_number",
    "us_itin", "uk_nhs",
)  # fmt: skip
NAMED: Final = (*NAMED_USUALLY, "organization", "age", "mac_address", "uuid")
SECRETS: Final = (
    "penstock_key", "anthropic_key", "openrouter_key", "openai_key", "aws_access_key", "github_token", "gitlab_token", "google_key",
    "slack_token", "stripe_key", "twilio_key", "sendgrid_key", "huggingface_token", "groq_key", "xai_key", "perplexity_key",
    "replicate_token", "npm_token", "pypi_token", "digitalocean_token", "azure_key", "jwt", "private_key", "password_in_url",
    "assigned_secret",
)  # fmt: skip
