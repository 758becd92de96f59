"""A Streamlit page with one chart of made-up points, and nothing else: what any page of Streamlit takes."""

import plotly.graph_objects as go
import streamlit as st

POINTS = 1000

st.plotly_chart(go.Figure(go.Scatter(x=list(range(POINTS)), y=[step % 97 for step in range(POINTS)], mode="lines")))
