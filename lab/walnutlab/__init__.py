# SPDX-License-Identifier: Apache-2.0
"""The lab: network namespaces with Walnut's whole topology, its servers and daemons, and what measures them."""
