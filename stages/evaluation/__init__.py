"""From raw components to numbers: normalisation, fusion, ROC, pictures. Pure functions on arrays."""
