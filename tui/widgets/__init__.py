"""What two screens share: table, meter, chart, form."""
