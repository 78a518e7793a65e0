"""Networks in the form that keras.applications gives them."""
