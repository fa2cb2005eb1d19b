"""The instruments: timing, parity, quality, resources, roofline, fingerprint, record, gate and report.

They know no particular model: a workload, a method and a backend reach them only through their contracts.
"""
