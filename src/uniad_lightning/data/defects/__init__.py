"""Synthetic defects: what methods learn from that want defective images without having any.

A file here is one kind. `conf/data/defects/NAME.yaml` configures it, and a method takes it in `conf/method/METHOD.yaml`
by `defaults: [/data/defects: NAME]`; `data.defects.KEY=VALUE` on the command line changes it.
"""
