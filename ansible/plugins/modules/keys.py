"""Says what the action of this name takes; that one does the work, on the controller."""

from __future__ import annotations

DOCUMENTATION = """
module: keys
short_description: Keep the keys of a datacenter on the controller
version_added: 0.1.0
author: hbagent (@hbagent)
description:
  - Makes key pairs for names that have none, and moves the rotation of a key on.
  - Secret halves are encrypted with the vault password of the run.
options:
  directory:
    description: Where the key files lie, on the controller.
    type: str
    required: true
  names:
    description: Whose keys there must be.
    type: list
    elements: str
    default: []
  command:
    description: The C(hbagent) of the controller, which makes the keys.
    type: str
    default: hbagent
  plain:
    description: Allow secret keys in plain text.
    type: bool
    default: false
  phases:
    description:
      - How far the rotation of a name shall be. C(offered) makes a next key, C(used) says that others call it,
        C(done) puts it in the place of the old one. An empty text gives up a rotation that is offered.
    type: dict
    default: {}
  absent:
    description: Names whose keys are taken away.
    type: list
    elements: str
    default: []
attributes:
  check_mode:
    support: full
    description: Says which keys it would make.
"""

EXAMPLES = """
- name: Keep keys for all
  hbagent.hbagent.keys:
    directory: "{{ inventory_dir }}/keys"
    names: [dc1/root, dc1/rack07-host11, dc1/rack07/host11]
  run_once: true
"""

RETURN = """
keys:
  description: For each of the names its public key, and the next one while it is rotated; empty where there is none.
  type: dict
  returned: always
  sample: {dc1/root: {public: "Kd1C[4ijFNv733^3{=ORquFV0-/r166Q]P:FH49$", next: ""}}
generations:
  description: What F(generations.yml) says.
  type: dict
  returned: always
changes:
  description: What was done, a sentence each.
  type: list
  elements: str
  returned: always
"""
