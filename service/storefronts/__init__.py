"""Where figures are pushed to: the port, one adapter a file, and what each storefront has heard."""
