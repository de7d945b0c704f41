"""The probes that come with raylr: what `train.probes` of a spec switches on.

updates, attention, router, activations, spikes    one probe each
optimizer_state                                     AdamW's state by tensor, wherever ZeRO keeps it
watched                                             the forward pass over the first validation batch, seen by hooks
shipped                                             names → probes
"""
