"""Servers without installing servers: broker and Valkey as children, and `runtally up`, which runs everything."""
