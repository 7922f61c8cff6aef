"""What several test files share: fakes, audio whose every sample is known, proxies, clocks."""
