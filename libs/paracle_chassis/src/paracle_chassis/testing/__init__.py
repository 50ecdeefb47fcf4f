"""What tests of services and of whole systems build on; part of the public interface."""
