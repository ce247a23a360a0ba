"""What people say of completions: asked blind, kept answer by answer, and used as data, as rewards and as labels."""
