"""The dashboard: Streamlit pages over the REST API. Numbers come through `calibrl.client`, never from the database."""
