"""First-order primitives by family. A primitive is one declaration; families supply what is common."""
