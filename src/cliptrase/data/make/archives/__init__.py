"""One module for each dataset: `records(source, data, folders)`, in the order of their ids."""
