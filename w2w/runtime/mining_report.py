def report_mining(store, out, shown):
    return {}
