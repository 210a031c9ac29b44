"""Cheap measurements that might tell a good layer from a bad one."""
